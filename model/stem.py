"""First convolution of an EfficientNet."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from .. import kernels
from ..kernels import Activation
from ..kernels.surface import Window, block_diagonal, window
from .batch_norm import BatchNorm
from .initial_weights import draw_weights
from .pending import Pending, convolve_bn


class Stem(nnx.Module):
  """Dense 3x3 convolution of images, batch norm and activation.

  Args:
    channels: Number of image channels.
    features: Number of channels of the result.
    stride: Stride over rows and columns.
    activation: Activation after the batch norm.
    norm: Function from the number of channels to the batch norm.
    rngs: Random numbers for the initial weights.
  """

  def __init__(
    self,
    channels: int,
    features: int,
    stride: int,
    *,
    activation: Activation,
    norm: Callable[[int], BatchNorm],
    rngs: nnx.Rngs,
  ):
    self.kernel = nnx.Param(
      draw_weights(rngs.params(), (3, 3, channels, features), 9 * features)
    )
    self.norm = norm(features)
    self.stride, self.activation = stride, activation

  def __call__(self, images: jax.Array, bands: int = 1) -> Pending:
    """Convolve images `[n, h, w, c]`, to `[h, w, n, features]`.

    Args:
      images: Images without bands.
      bands: Number of bands of the result.
    """
    return convolve_bn(
      partial(self._convolve, images, bands),
      self.kernel[...],
      self.norm,
      Pending(images, layout="HWNC", bands=bands),
      self.activation,
    )

  def _convolve(self, images, bands, kernel, *, moments=True):
    rows, columns = (
      window(size, 3, self.stride, "SAME") for size in images.shape[1:3]
    )
    padding = rows.low, rows.high
    if bands > 1:
      images, padding = _input_bands(images, rows, bands), (0, 0)
    y = lax.conv_general_dilated(
      images,
      block_diagonal(kernel, bands),
      (self.stride, self.stride),
      (padding, (columns.low, columns.high)),
      dimension_numbers=("NHWC", "HWIO", "HWNC"),
    )
    return (y, kernels.channel_moments(y, bands=bands)) if moments else y


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
