"""The layers of an EfficientNet, on activations [h, w, n, c].

A layer that ends in a batch norm returns its raw result and leaves the norm
pending as a scale and offset, which the next op applies on its way in.

With `bands` an activation is `[h / bands, w, n, bands * c]`, as
`kernels.to_bands` lays it.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from .. import kernels
from ..kernels import Moments
from ..kernels.surface import Window, block_diagonal, window

Pending = tuple[jax.Array, jax.Array]
"""The scale and offset, [c] each, of a batch norm not yet applied."""


def conv_init(key: jax.Array, shape: tuple[int, ...], fan_out: int):
  """TensorFlow EfficientNet's: normal, not truncated, variance 2 / fan_out."""
  return jax.random.normal(key, shape, jnp.float32) * math.sqrt(2 / fan_out)


class Stem(nnx.Module):
  """The first, dense convolution: 3x3, on images [n, h, w, c]."""

  def __init__(
    self, channels: int, features: int, stride: int, *, rngs: nnx.Rngs
  ):
    self.kernel = nnx.Param(
      conv_init(rngs.params(), (3, 3, channels, features), 9 * features)
    )
    self.stride = stride

  def __call__(
    self, images: jax.Array, bands: int = 1
  ) -> tuple[jax.Array, Moments]:
    """Raw result [h, w, n, features] and its moments; images are [n, h, w, c].

    Bands are those of the result.
    """
    rows, columns = (
      window(size, 3, self.stride, "SAME") for size in images.shape[1:3]
    )
    padding = rows.low, rows.high
    if bands > 1:
      images, padding = _rows_read(images, rows, bands), (0, 0)
    y = lax.conv_general_dilated(
      images,
      block_diagonal(self.kernel[...].astype(images.dtype), bands),
      (self.stride, self.stride),
      (padding, (columns.low, columns.high)),
      dimension_numbers=("NHWC", "HWIO", "HWNC"),
    )
    return y, kernels.channel_moments(y, bands=bands)


def _rows_read(images: jax.Array, rows: Window, bands: int) -> jax.Array:
  """What makes each band of a convolution's result, among the channels.

  As a transpose, and what bands read of the next one. The bands' rows side by
  side take XLA:TPU longer: v5e, 260x260x64 in 10 bands, 1,400 us alone, and the
  stem in all 2,250 instead of 880.
  """
  none = 0, 0
  padded = jnp.pad(images, (none, (rows.low, rows.high), none, none))
  n, _, w, c = images.shape
  step, beyond = rows.out // bands * rows.stride, rows.kernel_size - rows.stride
  own = padded[:, : bands * step].reshape(n, bands, step, w, c)
  own = own.transpose(0, 2, 3, 1, 4).reshape(n, step, w, bands * c)
  next_band = own[:, :beyond, :, c:], padded[:, bands * step :]
  return jnp.concatenate([own, jnp.concatenate(next_band, axis=3)], axis=1)


class Pointwise(nnx.Module):
  """A 1x1 convolution without bias."""

  def __init__(self, in_features: int, features: int, *, rngs: nnx.Rngs):
    self.kernel = nnx.Param(
      conv_init(rngs.params(), (in_features, features), features)
    )

  def __call__(self, x: jax.Array, bands: int = 1) -> tuple[jax.Array, Moments]:
    """Raw result [h, w, n, features] and its moments."""
    kernel = self.kernel[...].astype(x.dtype)
    return kernels.pointwise_conv_bn(x, kernel, bands=bands)

  def gated(
    self,
    x: jax.Array,
    scale: jax.Array,
    offset: jax.Array,
    squeeze_excite: "SqueezeExcite",
    bands: int = 1,
  ) -> tuple[jax.Array, Moments]:
    """As the call, of what a squeeze-excite has gated.

    Args:
      x: Raw, with a batch norm pending, a swish behind it.
      scale: Of the batch norm.
      offset: Of the batch norm.
      squeeze_excite: Makes the gate from the spatial means.
      bands: Of the images.
    """
    graph, params = nnx.split(squeeze_excite)
    return kernels.gated_pointwise_conv_bn(
      x,
      self.kernel[...].astype(x.dtype),
      scale,
      offset,
      lambda params, pooled: nnx.merge(graph, params)(pooled, x.dtype),
      params,
      activation="silu",
      bands=bands,
    )


class Depthwise(nnx.Module):
  """A depthwise convolution that applies the pending batch norm and swish."""

  def __init__(
    self, features: int, kernel_size: int, stride: int, *, rngs: nnx.Rngs
  ):
    shape = (kernel_size, kernel_size, features)
    # The reference counts one output per depthwise filter.
    self.filters = nnx.Param(conv_init(rngs.params(), shape, kernel_size**2))
    self.stride = stride

  def __call__(
    self, x: jax.Array, pending: Pending | None, bands: int = 1
  ) -> tuple[jax.Array, Moments]:
    """Raw result [ho, wo, n, features] and its moments."""
    scale, offset = pending or (None, None)
    return kernels.depthwise_conv_bn(
      x,
      self.filters[...].astype(x.dtype),
      scale,
      offset,
      activation="silu" if pending else None,
      stride=self.stride,
      bands=bands,
    )


class Dense(nnx.Module):
  """A matrix and a bias, float32 results."""

  def __init__(self, kernel: jax.Array):
    self.kernel = nnx.Param(kernel)
    self.bias = nnx.Param(jnp.zeros(kernel.shape[1], jnp.float32))

  def __call__(self, x: jax.Array) -> jax.Array:
    """`x @ kernel + bias`; the product takes its inputs in x's dtype."""
    kernel = self.kernel[...].astype(x.dtype)
    y = jnp.dot(x, kernel, preferred_element_type=jnp.float32)
    return y + self.bias[...][None]


class SqueezeExcite(nnx.Module):
  """A gate per image and channel, from the spatial means."""

  def __init__(self, features: int, squeezed: int, *, rngs: nnx.Rngs):
    def init(n_in, n_out):
      return conv_init(rngs.params(), (n_in, n_out), n_out)

    self.reduce = Dense(init(features, squeezed))
    self.expand = Dense(init(squeezed, features))

  def __call__(self, pooled: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The gate [n, c] in `dtype`, from the means [n, c] in float32."""
    hidden = jax.nn.silu(self.reduce(pooled.astype(dtype)))
    return jax.nn.sigmoid(self.expand(hidden.astype(dtype))).astype(dtype)
