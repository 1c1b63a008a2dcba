"""Squeeze-excite folded into the 1x1 convolution behind it."""

from .api import gated_pointwise_conv_bn

__all__ = ["gated_pointwise_conv_bn"]
