"""EfficientNet in plain JAX, to compare with.

NHWC, `lax` convolutions with feature groups, an ordinary batch norm, and
autodiff throughout.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from ...model import BatchNorm, EfficientNet
from ...model.block import Block
from ...model.regularization import ImageRngs, StochasticDepth
from ...model.squeeze_excite import SqueezeExcite


class PlainEfficientNet(EfficientNet):
  """The network in plain JAX, for training only.

  It has the variables of `EfficientNet` and computes the same function of them,
  so the same training step takes it. Dropout and stochastic depth draw other
  masks.
  """

  def __call__(
    self,
    images: jax.Array,
    *,
    rngs: nnx.Rngs | None = None,
    first_image: jax.Array | int = 0,
  ) -> jax.Array:
    """Compute logits; see `EfficientNet`."""
    images = images.astype(self.dtype)
    x = _conv(images, self.stem.kernel[...], self.stem.stride)
    x = jax.nn.silu(_batch_norm(x, self.stem.norm))
    image_rngs = ImageRngs(rngs, first_image)
    for block in self.blocks:
      x = _block(x, block, image_rngs)
    x = _conv(x, self.head.kernel[...][None, None])
    x = jax.nn.silu(_batch_norm(x, self.head.norm))
    x = self.dropout(jnp.mean(x.astype(jnp.float32), (1, 2)), image_rngs)
    classifier = self.classifier
    return x @ classifier.kernel[...] + classifier.bias[...][None]


def _block(x: jax.Array, block: Block, rngs: ImageRngs) -> jax.Array:
  inputs = x
  if block.has_expand:
    x = _conv(x, block.expand.kernel[...][None, None])
    x = jax.nn.silu(_batch_norm(x, block.expand.norm))
  depthwise = block.depthwise
  filters = depthwise.filters[...][:, :, None]
  x = _conv(x, filters, depthwise.stride, groups=x.shape[3])
  x = jax.nn.silu(_batch_norm(x, block.depthwise.norm))
  x = x * _squeeze_excite(x, block.squeeze_excite)
  x = _conv(x, block.project.kernel[...][None, None])
  x = _batch_norm(x, block.project.norm)
  return (
    inputs + _dropped(x, block.stochastic_depth, rngs) if block.has_skip else x
  )


def _dropped(x: jax.Array, drop: StochasticDepth, rngs: ImageRngs) -> jax.Array:
  if drop.survival_prob == 1:
    return x
  keep = rngs.keep(drop.survival_prob, len(x), (1, 1, 1))
  return jnp.where(keep, x / drop.survival_prob, 0)


def _squeeze_excite(x: jax.Array, layer: SqueezeExcite) -> jax.Array:
  dtype = x.dtype
  x = jnp.mean(x.astype(jnp.float32), axis=(1, 2), keepdims=True)
  x = x.astype(layer.reduce.kernel.dtype)
  x = jax.nn.silu(_biased(x, layer.reduce))
  return jax.nn.sigmoid(_biased(x, layer.expand)).astype(dtype)


def _biased(x, dense):
  y = _conv(x, dense.kernel[...][None, None])
  return y + dense.bias[...][None, None, None]


def _batch_norm(x: jax.Array, norm: BatchNorm) -> jax.Array:
  dtype = x.dtype
  x = x.astype(jnp.float32)
  mean, variance = _mean_and_variance(x, norm.axis_name)
  keep = norm.momentum
  for running, now in ((norm.mean, mean), (norm.var, variance)):
    now = lax.stop_gradient(now).ravel()
    running[...] = keep * running[...] + (1 - keep) * now
  scale = norm.scale[...][None, None, None] * lax.rsqrt(variance + norm.epsilon)
  offset = norm.bias[...][None, None, None]
  return ((x - mean) * scale + offset).astype(dtype)


def _mean_and_variance(x, axis_name):
  mean = jnp.mean(x, axis=(0, 1, 2), keepdims=True)
  if axis_name is None:
    return mean, jnp.mean(jnp.square(x - mean), axis=(0, 1, 2), keepdims=True)
  # Like flax: one collective for both means.
  square = jnp.mean(jnp.square(x), axis=(0, 1, 2), keepdims=True)
  mean, square = lax.pmean(jnp.stack([mean, square]), axis_name)
  return mean, jnp.maximum(square - jnp.square(mean), 0)


def _conv(x, kernel, stride=1, groups=1):
  return lax.conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    (stride, stride),
    "SAME",
    feature_group_count=groups,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
