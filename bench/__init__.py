"""Benchmarks: measurements on devices, and estimates for TPUs without one."""
