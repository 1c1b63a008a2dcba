"""Estimates for TPUs from compiled programs, without a TPU."""
