"""Writing the leaves of a tree into one buffer."""
