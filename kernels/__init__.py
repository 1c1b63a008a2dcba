"""Fused ops for convolutional networks; they need jax and numpy only."""

from .batch_norm import batch_norm, batch_norm_affine
from .channel_moments.api import channel_moments
from .common.activation import Activation
from .common.bands import change_bands, from_bands, over_bands, to_bands
from .common.moments import Moments
from .depthwise_conv import depthwise_conv_bn
from .describe import describe
from .gated_pointwise_conv import gated_pointwise_conv_bn
from .lars import lars_update
from .leaf_norms import leaf_norms
from .packed.packing import Packed, Packing, Shard, pack_like
from .pointwise_conv import pointwise_conv_bn
from .selection.requested import default_implementation
from .selection.selection import Selection

Choice = Selection
"""Former name of `Selection`."""

__all__ = [
  "Activation",
  "Choice",
  "Moments",
  "Packed",
  "Packing",
  "Selection",
  "Shard",
  "batch_norm",
  "batch_norm_affine",
  "change_bands",
  "channel_moments",
  "default_implementation",
  "depthwise_conv_bn",
  "describe",
  "from_bands",
  "gated_pointwise_conv_bn",
  "lars_update",
  "leaf_norms",
  "over_bands",
  "pack_like",
  "pointwise_conv_bn",
  "to_bands",
]
