"""The EfficientNet family as flax.nnx modules."""

from .batch_norm import BatchNorm
from .efficientnet import EfficientNet, efficientnet
from .spec import FAMILY, ModelSpec, model_spec

__all__ = [
  "FAMILY",
  "BatchNorm",
  "EfficientNet",
  "ModelSpec",
  "efficientnet",
  "model_spec",
]
