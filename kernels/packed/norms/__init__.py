"""Norm of each leaf in a packed buffer."""
