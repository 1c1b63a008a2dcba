"""Depthwise convolution fused with the batch norms before and behind it."""

from .api import depthwise_conv_bn

__all__ = ["depthwise_conv_bn"]
