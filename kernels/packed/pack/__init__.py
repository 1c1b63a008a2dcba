"""Implementations of packing: the leaves of a tree into one buffer."""
