"""MnasNet-B1 in flax.nnx with podscale's modules, on images in NHWC.

Tan et al. 2019, arXiv:1807.11626, without squeeze-excite, with the padding of
PyTorch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from podscale.model import BatchNorm, DepthwiseConvBN, PointwiseConvBN


class Stage(NamedTuple):
  """Consecutive blocks; only the first has the stride."""

  repeats: int
  kernel_size: int
  stride: int
  expansion: int
  features: int


STAGES = (
  Stage(1, 3, 1, 1, 16),
  Stage(3, 3, 2, 3, 24),
  Stage(3, 5, 2, 3, 40),
  Stage(3, 5, 2, 6, 80),
  Stage(2, 3, 1, 6, 96),
  Stage(4, 5, 2, 6, 192),
  Stage(1, 3, 1, 6, 320),
)
STEM, HEAD = 32, 1280


def norm(channels: int) -> BatchNorm:
  """Make a batch norm with PyTorch's epsilon."""
  return BatchNorm(channels, epsilon=1e-5)


class Block(nnx.Module):
  """Inverted bottleneck: expand, convolve depthwise, project."""

  def __init__(self, inputs: int, stage: Stage, stride: int, rngs: nnx.Rngs):
    wide, options = inputs * stage.expansion, {"norm": norm, "rngs": rngs}
    self.has_shortcut = stride == 1 and inputs == stage.features
    self.has_expand = stage.expansion > 1
    if self.has_expand:
      self.expand = PointwiseConvBN(inputs, wide, activation="relu", **options)
    self.depthwise = DepthwiseConvBN(
      *(wide, stage.kernel_size),
      stride=stride,
      padding=stage.kernel_size // 2,
      activation="relu",
      **options,
    )
    self.project = PointwiseConvBN(wide, stage.features, **options)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Apply the block to `[n, h, w, c]`."""
    y = self.depthwise(self.expand(x) if self.has_expand else x)
    y = self.project(y).normalised()
    return x + y if self.has_shortcut else y


class MnasNetB1(nnx.Module):
  """MnasNet-B1: images `[n, h, w, 3]` to logits `[n, classes]`."""

  def __init__(self, classes: int, *, rngs: nnx.Rngs):
    self.stem = nnx.Conv(
      *(3, STEM, (3, 3)), strides=2, padding=1, use_bias=False, rngs=rngs
    )
    self.stem_norm = norm(STEM)
    blocks, channels = [], STEM
    for stage in STAGES:
      for i in range(stage.repeats):
        stride = stage.stride if i == 0 else 1
        blocks.append(Block(channels, stage, stride, rngs))
        channels = stage.features
    self.blocks = nnx.List(blocks)
    self.head = PointwiseConvBN(
      channels, HEAD, activation="relu", norm=norm, rngs=rngs
    )
    self.classifier = nnx.Linear(HEAD, classes, rngs=rngs)

  def __call__(self, images: jax.Array) -> jax.Array:
    """Compute logits, `[n, classes]`."""
    x = self.stem(images).astype(images.dtype)
    x = self.stem_norm(x, activation="relu")
    for block in self.blocks:
      x = block(x)
    return self.classifier(self.head(x).pooled())


if __name__ == "__main__":
  model = MnasNetB1(1000, rngs=nnx.Rngs(0))
  print(model(jnp.ones((2, 224, 224, 3))).shape)
