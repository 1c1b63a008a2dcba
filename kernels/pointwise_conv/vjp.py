"""A 1x1 convolution to more channels, with the moments of its result.

The wide result is not read in the backward pass. With slope b and constant a of
what comes back through the moments, the cotangent of y = x W is dy + a + y b,
and y b is linear in x:

    dx = dy W' + a W' + x (W b W')
    dW = x' dy + sum(x)' a + (x' x) W b

The products with x are as narrow as x, and centring it keeps the sums from
cancelling.
"""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from ..channel_moments.api import channel_moments
from ..common.bands import over_bands, sum_bands
from ..common.moments import Moments
from ..common.pointwise_matmul import (
  block_diagonal,
  pointwise_matmul,
  sum_diagonal_blocks,
)
from ..common.recompute import recompute_from
from ..selection.by_platform import Forms, run
from ..selection.dispatch import Implementation
from . import tpu as pallas_tpu
from . import xla

_F32 = jnp.float32
_PRODUCTS: Mapping[Implementation, Callable[..., xla.Products]] = {
  "xla": xla.products,
  "pallas_tpu": pallas_tpu.products,
}
_dot_f32 = partial(jnp.dot, precision=lax.Precision.HIGHEST)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def expansion(
  x: jax.Array, kernel: jax.Array, bands: int, forms: Forms
) -> tuple[jax.Array, Moments]:
  """See `podscale.kernels.pointwise_conv_bn`."""
  y = pointwise_matmul(x, block_diagonal(kernel, bands))
  # The mean over the middle row, from x, so that XLA:TPU sums about it in the
  # loop that makes y: v3, 29x29x32x128 to 768 channels, 403 to 120 us.
  pivot = _dot_f32(_middle(x, bands)[None], kernel.astype(_F32))[0]
  return y, channel_moments(y, pivot=pivot, bands=bands)


def _middle(x, bands) -> jax.Array:
  """The mean of x's middle row, over all bands, `[c]` float32."""
  row = x[x.shape[0] // 2].astype(_F32)
  return sum_bands(row.mean((0, 1)), bands) / bands


def _forward(x, kernel, bands, forms):
  return expansion(x, kernel, bands, forms), (x, kernel)


def _backward(bands, forms, residuals, cotangents):
  (x, kernel), (dy, dmoments) = recompute_from(residuals, cotangents)
  count = x.size // kernel.shape[0]
  weights = kernel.astype(_F32)
  scaled = weights * (2 * dmoments.m2)[None]
  through = _dot_f32(scaled, weights.T)  # W b W'

  def constant(total):
    """What all pixels' dx have in common, given the sum of x about middle."""
    shift = sum_bands(total, bands)[None] / count
    constant = _dot_f32(dmoments.mean[None] / count, weights.T)
    return over_bands((constant - _dot_f32(shift, through))[0], bands)

  middle = _middle(x, bands)
  dx, cross, gram, total = run(
    forms,
    _PRODUCTS,
    constant,
    *(x, dy, over_bands(middle, bands)),
    block_diagonal(kernel.T, bands),
    block_diagonal(through.astype(x.dtype), bands),
  )
  shift = sum_bands(total, bands) / count
  gram = sum_diagonal_blocks(gram, bands) - count * shift[:, None] * shift[None]
  dkernel = sum_diagonal_blocks(cross, bands) + _dot_f32(gram, scaled)
  dkernel = dkernel + (middle + shift)[:, None] * dmoments.mean[None]
  return dx, dkernel.astype(kernel.dtype)


expansion.defvjp(_forward, _backward)
