"""MobileNetV3-Large in flax.nnx with podscale's modules, on images in NHWC.

Howard et al. 2019, arXiv:1905.02244, table 1, with the padding of PyTorch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from podscale.model import (
  BatchNorm,
  DepthwiseConvBN,
  PointwiseConvBN,
  SqueezeExcite,
)


class Row(NamedTuple):
  """Row of the paper's table 1."""

  kernel_size: int
  expanded: int
  features: int
  squeezed: int  # channels of the squeeze-excite; 0 for none
  activation: str
  stride: int


BLOCKS = (
  Row(3, 16, 16, 0, "relu", 1),
  Row(3, 64, 24, 0, "relu", 2),
  Row(3, 72, 24, 0, "relu", 1),
  Row(5, 72, 40, 24, "relu", 2),
  Row(5, 120, 40, 32, "relu", 1),
  Row(5, 120, 40, 32, "relu", 1),
  Row(3, 240, 80, 0, "hard_swish", 2),
  Row(3, 200, 80, 0, "hard_swish", 1),
  Row(3, 184, 80, 0, "hard_swish", 1),
  Row(3, 184, 80, 0, "hard_swish", 1),
  Row(3, 480, 112, 120, "hard_swish", 1),
  Row(3, 672, 112, 168, "hard_swish", 1),
  Row(5, 672, 160, 168, "hard_swish", 2),
  Row(5, 960, 160, 240, "hard_swish", 1),
  Row(5, 960, 160, 240, "hard_swish", 1),
)
STEM, LAST, HEAD = 16, 960, 1280


def norm(channels: int) -> BatchNorm:
  """Make a batch norm with the paper's epsilon."""
  return BatchNorm(channels, epsilon=1e-3)


class Block(nnx.Module):
  """Inverted bottleneck with an optional squeeze-excite."""

  def __init__(self, inputs: int, row: Row, rngs: nnx.Rngs):
    options = {"norm": norm, "rngs": rngs}
    self.has_shortcut = row.stride == 1 and inputs == row.features
    self.has_expand = row.expanded != inputs
    if self.has_expand:
      self.expand = PointwiseConvBN(
        inputs, row.expanded, activation=row.activation, **options
      )
    self.depthwise = DepthwiseConvBN(
      *(row.expanded, row.kernel_size),
      stride=row.stride,
      padding=row.kernel_size // 2,
      activation=row.activation,
      **options,
    )
    self.has_gate = row.squeezed > 0
    if self.has_gate:
      self.squeeze_excite = SqueezeExcite(
        *(row.expanded, row.squeezed),
        activation="relu",
        gate="hard_sigmoid",
        rngs=rngs,
      )
    self.project = PointwiseConvBN(row.expanded, row.features, **options)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Apply the block to `[n, h, w, c]`."""
    y = self.depthwise(self.expand(x) if self.has_expand else x)
    gate = self.squeeze_excite if self.has_gate else None
    y = self.project(y, gate).normalised()
    return x + y if self.has_shortcut else y


class MobileNetV3Large(nnx.Module):
  """MobileNetV3-Large: images `[n, h, w, 3]` to logits `[n, classes]`."""

  def __init__(self, classes: int, *, rngs: nnx.Rngs):
    self.stem = nnx.Conv(
      *(3, STEM, (3, 3)), strides=2, padding=1, use_bias=False, rngs=rngs
    )
    self.stem_norm = norm(STEM)
    inputs = (STEM, *(row.features for row in BLOCKS))
    self.blocks = nnx.List(
      [Block(n, row, rngs) for n, row in zip(inputs, BLOCKS, strict=False)]
    )
    self.last = PointwiseConvBN(
      inputs[-1], LAST, activation="hard_swish", norm=norm, rngs=rngs
    )
    self.head = nnx.Linear(LAST, HEAD, rngs=rngs)
    self.classifier = nnx.Linear(HEAD, classes, rngs=rngs)

  def __call__(self, images: jax.Array) -> jax.Array:
    """Compute logits, `[n, classes]`."""
    x = self.stem(images).astype(images.dtype)
    x = self.stem_norm(x, activation="hard_swish")
    for block in self.blocks:
      x = block(x)
    x = jax.nn.hard_swish(self.head(self.last(x).pooled()))
    return self.classifier(x)


if __name__ == "__main__":
  model = MobileNetV3Large(1000, rngs=nnx.Rngs(0))
  print(model(jnp.ones((2, 224, 224, 3))).shape)
