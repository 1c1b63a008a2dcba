"""MobileNetV4-Conv-Small in flax.nnx with podscale's modules, in NHWC.

Qin et al. 2024, arXiv:2404.10518, with the padding of PyTorch. Its universal
inverted bottleneck has a depthwise convolution before the expansion, after it,
both or none; the one before has no activation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from podscale.model import BatchNorm, DepthwiseConvBN, PointwiseConvBN


class Row(NamedTuple):
  """Block; `before` and `after` are filter sizes, 0 for no convolution."""

  before: int
  after: int
  stride: int
  expansion: int
  features: int


# Filter size, stride and channels of the dense convolutions.
DENSE = ((3, 2, 32), (3, 2, 32), (1, 1, 32), (3, 2, 96), (1, 1, 64))
BLOCKS = (
  Row(5, 5, 2, 3, 96),
  *[Row(0, 3, 1, 2, 96)] * 4,
  Row(3, 0, 1, 4, 96),
  Row(3, 3, 2, 6, 128),
  Row(5, 5, 1, 4, 128),
  Row(0, 5, 1, 4, 128),
  Row(0, 5, 1, 3, 128),
  *[Row(0, 3, 1, 4, 128)] * 2,
)
LAST, HEAD = 960, 1280


def norm(channels: int) -> BatchNorm:
  """Make a batch norm with PyTorch's epsilon."""
  return BatchNorm(channels, epsilon=1e-5)


class DenseConvBN(nnx.Module):
  """Dense convolution, batch norm and relu."""

  def __init__(self, inputs, features, kernel_size, stride, rngs):
    self.conv = nnx.Conv(
      *(inputs, features, (kernel_size, kernel_size)),
      strides=stride,
      padding=kernel_size // 2,
      use_bias=False,
      rngs=rngs,
    )
    self.norm = norm(features)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Apply the layer to `[n, h, w, c]`."""
    return self.norm(self.conv(x).astype(x.dtype), activation="relu")


class Block(nnx.Module):
  """Universal inverted bottleneck."""

  def __init__(self, inputs: int, row: Row, rngs: nnx.Rngs):
    wide, options = inputs * row.expansion, {"norm": norm, "rngs": rngs}
    self.row = row
    self.has_shortcut = row.stride == 1 and inputs == row.features
    if row.before:
      self.before = DepthwiseConvBN(
        *(inputs, row.before),
        stride=1 if row.after else row.stride,
        padding=row.before // 2,
        **options,
      )
    self.expand = PointwiseConvBN(inputs, wide, activation="relu", **options)
    if row.after:
      self.after = DepthwiseConvBN(
        *(wide, row.after),
        stride=row.stride,
        padding=row.after // 2,
        activation="relu",
        **options,
      )
    self.project = PointwiseConvBN(wide, row.features, **options)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Apply the block to `[n, h, w, c]`."""
    y = self.expand(self.before(x) if self.row.before else x)
    y = self.project(self.after(y) if self.row.after else y).normalised()
    return x + y if self.has_shortcut else y


class MobileNetV4ConvSmall(nnx.Module):
  """MobileNetV4-Conv-Small: images `[n, h, w, 3]` to logits `[n, classes]`."""

  def __init__(self, classes: int, *, rngs: nnx.Rngs):
    channels = 3
    dense, blocks = [], []
    for kernel_size, stride, features in DENSE:
      dense.append(DenseConvBN(channels, features, kernel_size, stride, rngs))
      channels = features
    for row in BLOCKS:
      blocks.append(Block(channels, row, rngs))
      channels = row.features
    self.dense, self.blocks = nnx.List(dense), nnx.List(blocks)
    self.last = PointwiseConvBN(
      channels, LAST, activation="relu", norm=norm, rngs=rngs
    )
    # The head convolves the mean of each image, one pixel.
    self.head = nnx.Linear(LAST, HEAD, use_bias=False, rngs=rngs)
    self.head_norm = norm(HEAD)
    self.classifier = nnx.Linear(HEAD, classes, rngs=rngs)

  def __call__(self, images: jax.Array) -> jax.Array:
    """Compute logits, `[n, classes]`."""
    x = images
    for layer in (*self.dense, *self.blocks):
      x = layer(x)
    x = self.head(self.last(x).pooled())
    return self.classifier(self.head_norm(x, activation="relu"))


if __name__ == "__main__":
  model = MobileNetV4ConvSmall(1000, rngs=nnx.Rngs(0))
  print(model(jnp.ones((2, 224, 224, 3))).shape)
