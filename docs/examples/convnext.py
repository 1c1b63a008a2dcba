"""ConvNeXt-Tiny in flax.nnx with podscale's depthwise convolution, in NHWC.

Liu et al. 2022, arXiv:2201.03545, section 2. It has layer norm in place of
batch norm, so the convolution makes no moments; it has a bias.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from podscale import kernels

DEPTHS, WIDTHS = (3, 3, 9, 3), (96, 192, 384, 768)


def layer_norm(channels: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
  """Make a layer norm with the paper's epsilon."""
  return nnx.LayerNorm(
    channels, epsilon=1e-6, use_fast_variance=False, rngs=rngs
  )


class Block(nnx.Module):
  """Depthwise 7x7, layer norm, and two dense layers of each pixel."""

  def __init__(self, channels: int, rngs: nnx.Rngs):
    init = nnx.initializers.truncated_normal(0.02)
    self.filters = nnx.Param(init(rngs.params(), (7, 7, channels)))
    self.bias = nnx.Param(jnp.zeros(channels))
    self.norm = layer_norm(channels, rngs)
    self.widen = nnx.Linear(channels, 4 * channels, rngs=rngs)
    self.narrow = nnx.Linear(4 * channels, channels, rngs=rngs)
    self.gamma = nnx.Param(jnp.full(channels, 1e-6))

  def __call__(self, x: jax.Array) -> jax.Array:
    """Apply the block to `[n, h, w, c]`."""
    y = kernels.depthwise_conv_bn(
      x,
      self.filters[...].astype(x.dtype),
      bias=self.bias[...],
      moments=False,
      layout="NHWC",
    )
    y = self.widen(self.norm(y).astype(x.dtype)).astype(x.dtype)
    y = self.narrow(jax.nn.gelu(y, approximate=False)).astype(x.dtype)
    return x + y * self.gamma[...].astype(x.dtype)[None, None, None]


class ConvNeXtTiny(nnx.Module):
  """ConvNeXt-Tiny: images `[n, h, w, 3]` to logits `[n, classes]`."""

  def __init__(self, classes: int, *, rngs: nnx.Rngs):
    def conv(inputs, outputs, size):
      return nnx.Conv(
        *(inputs, outputs, (size, size)),
        strides=size,
        padding="VALID",
        rngs=rngs,
      )

    inputs = (3, *WIDTHS)
    self.downsample = nnx.List(
      [conv(*inputs[i : i + 2], 4 if i == 0 else 2) for i in range(4)]
    )
    # The stem's layer norm follows its convolution, the others precede theirs.
    self.norms = nnx.List([layer_norm(n, rngs) for n in (96, *WIDTHS[:3])])
    self.stages = nnx.List(
      [
        nnx.List([Block(width, rngs) for _ in range(depth)])
        for depth, width in zip(DEPTHS, WIDTHS, strict=True)
      ]
    )
    self.head_norm = layer_norm(WIDTHS[-1], rngs)
    self.classifier = nnx.Linear(WIDTHS[-1], classes, rngs=rngs)

  def __call__(self, images: jax.Array) -> jax.Array:
    """Compute logits, `[n, classes]`."""
    x, dtype = images, images.dtype
    for i in range(4):
      conv, norm = self.downsample[i], self.norms[i]
      x = norm(conv(x)) if i == 0 else conv(norm(x).astype(dtype))
      x = x.astype(dtype)
      for block in self.stages[i]:
        x = block(x)
    pooled = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
    return self.classifier(self.head_norm(pooled))


if __name__ == "__main__":
  model = ConvNeXtTiny(1000, rngs=nnx.Rngs(0))
  print(model(jnp.ones((2, 224, 224, 3))).shape)
