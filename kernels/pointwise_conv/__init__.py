"""A 1x1 convolution with the moments of its result."""

from .api import pointwise_conv_bn

__all__ = ["pointwise_conv_bn"]
