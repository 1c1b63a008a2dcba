"""1x1 convolution to more channels, with the moments of its result.

The backward pass does not read the wide result y = x W. With m values per
channel, the moments send dmean / m + 2 dm2 (y - mean) to y: a constant a, and y
times a slope b, both per channel. The cotangent of y is dy + a + y b, and y b
is linear in x:

    dx = dy W' + a W' + x (W b W')
    dW = x' dy + sum(x)' a + (x' x) W b

The products with x are as narrow as x. They are taken of z, which is x minus
the mean of its middle row, so that the sums do not cancel:

    dx = dy W' + z (W b W') + (dmean / m - mean(z) W b) W'
    dW = x' dy + sum(x)' dmean / m + (z' z - m mean(z)' mean(z)) W b
"""

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
from ..selection.selection import Selection, run
from . import tpu as pallas_tpu
from . import xla

_F32 = jnp.float32
_dot_f32 = partial(jnp.dot, precision=lax.Precision.HIGHEST)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def expansion(
  x: jax.Array, weights: jax.Array, bands: int, selection: Selection
) -> tuple[jax.Array, Moments]:
  """Compute `podscale.kernels.pointwise_conv_bn` to more channels."""
  y = pointwise_matmul(x, block_diagonal(weights, bands))
  # The middle row's mean, computed from x, lets XLA:TPU sum about it in the
  # loop that makes y: v3, 29x29x32x128 to 768 channels, 403 to 120 us.
  shift = _dot_f32(_middle(x, bands)[None], weights.astype(_F32))[0]
  return y, channel_moments(y, pivot=shift, bands=bands)


def _middle(x, bands) -> jax.Array:
  """Compute the mean of x's middle row over all bands, `[c]` float32."""
  row = x[x.shape[0] // 2].astype(_F32)
  return sum_bands(row.mean((0, 1)), bands) / bands


def _forward(x, weights, bands, selection):
  return expansion(x, weights, bands, selection), (x, weights)


def _backward(bands, selection, residuals, cotangents):
  (x, weights), (dy, dmoments) = recompute_from(residuals, cotangents)
  count = x.size // weights.shape[0]
  wide = weights.astype(_F32)
  sloped = wide * (2 * dmoments.m2)[None]  # W b
  through = _dot_f32(sloped, wide.T)  # W b W'
  constant = dmoments.mean / count

  middle = _middle(x, bands)
  products: xla.Products = run(
    selection,
    {
      "xla": xla.products,
      "pallas_tpu": partial(pallas_tpu.products, plan=selection.plan),
    },
    *(x, dy, over_bands(middle, bands)),
    block_diagonal(weights.T, bands),
    block_diagonal(through.astype(x.dtype), bands),
  )
  mean_z = sum_bands(products.total, bands) / count

  # The consumer of dx adds the constant. To have it in the kernel, the kernel
  # would read x once more.
  dx_constant = _dot_f32(constant[None], wide.T)
  dx_constant = dx_constant - _dot_f32(mean_z[None], through)
  dx = products.dx + over_bands(dx_constant[0], bands)[None, None, None]

  gram = sum_diagonal_blocks(products.gram, bands)
  gram = gram - count * mean_z[:, None] * mean_z[None]
  dweights = sum_diagonal_blocks(products.cross, bands) + _dot_f32(gram, sloped)
  dweights = dweights + (middle + mean_z)[:, None] * dmoments.mean[None]
  return dx.astype(x.dtype), dweights.astype(weights.dtype)


expansion.defvjp(_forward, _backward)
