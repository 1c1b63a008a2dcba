"""Commands of `python -m podscale.train.data`: inspect, convert, verify, ..."""
