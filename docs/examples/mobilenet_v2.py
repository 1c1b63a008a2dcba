"""MobileNetV2 in flax.nnx with podscale's modules, on images in NHWC.

Sandler et al. 2018, arXiv:1801.04381, table 2, with the padding of PyTorch.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from podscale.model import BatchNorm, DepthwiseConvBN, PointwiseConvBN

# Expansion, channels, blocks, stride of the first block.
STAGES = (
  (1, 16, 1, 1),
  (6, 24, 2, 2),
  (6, 32, 3, 2),
  (6, 64, 4, 2),
  (6, 96, 3, 1),
  (6, 160, 3, 2),
  (6, 320, 1, 1),
)
STEM, HEAD = 32, 1280


def norm(channels: int) -> BatchNorm:
  """Make a batch norm with PyTorch's epsilon."""
  return BatchNorm(channels, epsilon=1e-5)


class Block(nnx.Module):
  """Inverted bottleneck: expand, convolve depthwise, project."""

  def __init__(
    self, inputs: int, features: int, expansion: int, stride: int, rngs
  ):
    wide, options = inputs * expansion, {"norm": norm, "rngs": rngs}
    self.has_shortcut = stride == 1 and inputs == features
    self.has_expand = expansion > 1
    if self.has_expand:
      self.expand = PointwiseConvBN(inputs, wide, activation="relu6", **options)
    self.depthwise = DepthwiseConvBN(
      wide, 3, stride=stride, padding=1, activation="relu6", **options
    )
    self.project = PointwiseConvBN(wide, features, **options)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Apply the block to `[n, h, w, c]`."""
    y = self.depthwise(self.expand(x) if self.has_expand else x)
    y = self.project(y).normalised()
    return x + y if self.has_shortcut else y


class MobileNetV2(nnx.Module):
  """MobileNetV2: images `[n, h, w, 3]` to logits `[n, classes]`."""

  def __init__(self, classes: int, *, width: float = 1.0, rngs: nnx.Rngs):
    def scaled(channels):
      return max(8, int(channels * width + 4) // 8 * 8)

    channels, head = scaled(STEM), max(HEAD, scaled(HEAD))
    self.stem = nnx.Conv(
      *(3, channels, (3, 3)), strides=2, padding=1, use_bias=False, rngs=rngs
    )
    self.stem_norm = norm(channels)
    blocks = []
    for expansion, features, count, stride in STAGES:
      for i in range(count):
        first = stride if i == 0 else 1
        blocks.append(Block(channels, scaled(features), expansion, first, rngs))
        channels = scaled(features)
    self.blocks = nnx.List(blocks)
    self.head = PointwiseConvBN(
      channels, head, activation="relu6", norm=norm, rngs=rngs
    )
    self.classifier = nnx.Linear(head, classes, rngs=rngs)

  def __call__(self, images: jax.Array) -> jax.Array:
    """Compute logits, `[n, classes]`."""
    x = self.stem(images).astype(images.dtype)
    x = self.stem_norm(x, activation="relu6")
    for block in self.blocks:
      x = block(x)
    return self.classifier(self.head(x).pooled())


if __name__ == "__main__":
  model = MobileNetV2(1000, rngs=nnx.Rngs(0))
  print(model(jnp.ones((2, 224, 224, 3))).shape)
