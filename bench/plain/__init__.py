"""Rivals in plain JAX: the depthwise layer, the network and the step."""
