"""Training of EfficientNets: `python -m podscale.train PRESET`."""
