"""The rivals: the same network and step in plain JAX."""
