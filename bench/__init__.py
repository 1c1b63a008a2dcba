"""Benchmarks: `python -m podscale.bench`."""
