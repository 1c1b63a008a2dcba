"""Shared parts of the Pallas TPU kernels: chips, registers, loops, calls."""
