"""Layers of an EfficientNet, on activations [h, w, n, c].

A layer that ends in a batch norm returns its raw result. The norm is pending:
the next op applies its scale and offset as it reads the result.

With `bands` an activation is `[h / bands, w, n, bands * c]`, the layout of
`kernels.to_bands`.
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
"""Scale and offset, [c] each, of a batch norm that is not yet applied."""


def conv_init(key: jax.Array, shape: tuple[int, ...], fan_out: int):
  """Draw initial weights from a normal distribution, variance 2 / fan_out.

  The distribution is not truncated, as in TensorFlow's EfficientNet.
  """
  return jax.random.normal(key, shape, jnp.float32) * math.sqrt(2 / fan_out)


class Stem(nnx.Module):
  """First convolution: dense 3x3, on images [n, h, w, c]."""

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
    """Convolve images [n, h, w, c]; return [h, w, n, features] and its moments.

    Args:
      images: Images without bands.
      bands: Number of bands of the result.
    """
    rows, columns = (
      window(size, 3, self.stride, "SAME") for size in images.shape[1:3]
    )
    padding = rows.low, rows.high
    if bands > 1:
      images, padding = _input_bands(images, rows, bands), (0, 0)
    y = lax.conv_general_dilated(
      images,
      block_diagonal(self.kernel[...].astype(images.dtype), bands),
      (self.stride, self.stride),
      (padding, (columns.low, columns.high)),
      dimension_numbers=("NHWC", "HWIO", "HWNC"),
    )
    return y, kernels.channel_moments(y, bands=bands)


def _input_bands(images: jax.Array, rows: Window, bands: int) -> jax.Array:
  """Cut images into the rows that each band of the result reads.

  The bands become channels by a transpose; each band then gets the first rows
  of the next one. Slicing the rows of each band takes XLA:TPU longer: on v5e,
  260x260x64 in 10 bands, 1,400 us for the slices alone, and 2,250 instead of
  880 us for the whole stem (bench/results/step.md).
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
  """1x1 convolution without bias."""

  def __init__(self, in_features: int, features: int, *, rngs: nnx.Rngs):
    self.kernel = nnx.Param(
      conv_init(rngs.params(), (in_features, features), features)
    )

  def __call__(self, x: jax.Array, bands: int = 1) -> tuple[jax.Array, Moments]:
    """Convolve x; return the raw [h, w, n, features] and its moments."""
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
    """Normalise and gate x, then convolve it as `__call__` does.

    Args:
      x: Raw result of a convolution; its batch norm and swish are pending.
      scale: Scale of the pending batch norm.
      offset: Offset of the pending batch norm.
      squeeze_excite: Layer that computes the gate from the spatial means.
      bands: Number of bands.
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
  """Depthwise convolution that applies the pending batch norm and swish."""

  def __init__(
    self, features: int, kernel_size: int, stride: int, *, rngs: nnx.Rngs
  ):
    shape = (kernel_size, kernel_size, features)
    # The reference's fan-out counts one output per depthwise filter.
    self.filters = nnx.Param(conv_init(rngs.params(), shape, kernel_size**2))
    self.stride = stride

  def __call__(
    self, x: jax.Array, pending: Pending | None, bands: int = 1
  ) -> tuple[jax.Array, Moments]:
    """Convolve x; return the raw [ho, wo, n, features] and its moments."""
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
  """Dense layer with float32 results."""

  def __init__(self, kernel: jax.Array):
    self.kernel = nnx.Param(kernel)
    self.bias = nnx.Param(jnp.zeros(kernel.shape[1], jnp.float32))

  def __call__(self, x: jax.Array) -> jax.Array:
    """Compute `x @ kernel + bias`, with the kernel cast to x's dtype."""
    kernel = self.kernel[...].astype(x.dtype)
    y = jnp.dot(x, kernel, preferred_element_type=jnp.float32)
    return y + self.bias[...][None]


class SqueezeExcite(nnx.Module):
  """Squeeze-excite gate per image and channel, from the spatial means."""

  def __init__(self, features: int, squeezed: int, *, rngs: nnx.Rngs):
    def init(n_in, n_out):
      return conv_init(rngs.params(), (n_in, n_out), n_out)

    self.reduce = Dense(init(features, squeezed))
    self.expand = Dense(init(squeezed, features))

  def __call__(self, pooled: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Compute the gate [n, c] in `dtype` from the float32 means [n, c]."""
    hidden = jax.nn.silu(self.reduce(pooled.astype(dtype)))
    return jax.nn.sigmoid(self.expand(hidden.astype(dtype))).astype(dtype)
