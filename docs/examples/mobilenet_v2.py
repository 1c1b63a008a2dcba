"""MobileNetV2 in flax.nnx with podscale's ops, on images in NHWC.

Sandler et al. 2018, arXiv:1801.04381, table 2, with the padding of PyTorch. A
convolution returns its raw result and the result's moments. The next op applies
the batch norm and the activation while it reads that result, so that no
normalised array is written but at the end of a block.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from podscale import kernels
from podscale.model import BatchNorm

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


class Block(nnx.Module):
  """Inverted bottleneck: expand, convolve depthwise, project."""

  def __init__(
    self, inputs: int, features: int, expansion: int, stride: int, rngs
  ):
    init, wide = nnx.initializers.he_normal(), inputs * expansion
    self.stride = stride
    self.has_shortcut = stride == 1 and inputs == features
    if expansion > 1:
      self.expand = nnx.Param(init(rngs.params(), (inputs, wide)))
      self.expand_norm = BatchNorm(wide, epsilon=1e-5)
    self.filters = nnx.Param(init(rngs.params(), (3, 3, wide)))
    self.depthwise_norm = BatchNorm(wide, epsilon=1e-5)
    self.project = nnx.Param(init(rngs.params(), (wide, features)))
    self.project_norm = BatchNorm(features, epsilon=1e-5)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Apply the block to `[n, h, w, c]`."""
    y, pending, activation = x, (None, None), None
    if hasattr(self, "expand"):
      y, moments = kernels.pointwise_conv_bn(
        y, self.expand[...].astype(x.dtype), layout="NHWC"
      )
      pending, activation = self.expand_norm.affine(moments), "relu6"
    y, moments = kernels.depthwise_conv_bn(
      y,
      self.filters[...].astype(x.dtype),
      *pending,
      activation=activation,
      stride=self.stride,
      padding=1,
      layout="NHWC",
    )
    y, moments = kernels.gated_pointwise_conv_bn(
      y,
      self.project[...].astype(x.dtype),
      *self.depthwise_norm.affine(moments),
      activation="relu6",
      layout="NHWC",
    )
    affine = self.project_norm.affine(moments)
    y = kernels.batch_norm(y, *affine, layout="NHWC")
    return x + y if self.has_shortcut else y


class MobileNetV2(nnx.Module):
  """MobileNetV2: images `[n, h, w, 3]` to logits `[n, classes]`."""

  def __init__(self, classes: int, *, width: float = 1.0, rngs: nnx.Rngs):
    def scaled(channels):
      return max(8, int(channels * width + 4) // 8 * 8)

    def conv(size, inputs, outputs, stride):
      return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=False,
        rngs=rngs,
      )

    channels, head = scaled(STEM), max(HEAD, scaled(HEAD))
    self.stem = conv(3, 3, channels, 2)
    self.stem_norm = BatchNorm(channels, epsilon=1e-5)
    blocks = []
    for expansion, features, count, stride in STAGES:
      for i in range(count):
        first = stride if i == 0 else 1
        blocks.append(Block(channels, scaled(features), expansion, first, rngs))
        channels = scaled(features)
    self.blocks = nnx.List(blocks)
    self.head = nnx.Param(
      nnx.initializers.he_normal()(rngs.params(), (channels, head))
    )
    self.head_norm = BatchNorm(head, epsilon=1e-5)
    self.classifier = nnx.Linear(head, classes, rngs=rngs)

  def __call__(self, images: jax.Array) -> jax.Array:
    """Compute logits, `[n, classes]`."""
    x = self.stem_norm(self.stem(images), activation="relu6")
    for block in self.blocks:
      x = block(x)
    x, moments = kernels.pointwise_conv_bn(
      x, self.head[...].astype(x.dtype), layout="NHWC"
    )
    _, pooled = kernels.batch_norm(
      x,
      *self.head_norm.affine(moments),
      activation="relu6",
      pool=True,
      layout="NHWC",
    )
    return self.classifier(pooled)


def count_params(model: nnx.Module) -> int:
  """Count the trained weights of a model."""
  state = nnx.state(model, nnx.Param)
  return sum(leaf.size for leaf in jax.tree.leaves(state))


if __name__ == "__main__":
  model = MobileNetV2(1000, rngs=nnx.Rngs(0))
  print(f"{count_params(model):,} parameters")  # 3,504,872, as torchvision's
  print(model(jnp.ones((2, 224, 224, 3))).shape)
