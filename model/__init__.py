"""Modules of flax.nnx on the fused ops, and the EfficientNet family."""

from .batch_norm import BatchNorm
from .depthwise_conv_bn import DepthwiseConvBN
from .efficientnet import EfficientNet, efficientnet
from .pending import Pending
from .pointwise_conv_bn import PointwiseConvBN
from .spec import FAMILY, ModelSpec, model_spec
from .squeeze_excite import SqueezeExcite

__all__ = [
  "FAMILY",
  "BatchNorm",
  "DepthwiseConvBN",
  "EfficientNet",
  "ModelSpec",
  "Pending",
  "PointwiseConvBN",
  "SqueezeExcite",
  "efficientnet",
  "model_spec",
]
