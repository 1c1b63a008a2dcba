"""Benchmarks that run on the devices at hand."""
