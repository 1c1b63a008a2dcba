"""Norms of each tensor of a packed buffer."""
