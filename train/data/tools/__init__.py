"""Commands of `python -m podscale.train.data`, one module each."""
