"""The depthwise convolution in plain JAX."""
