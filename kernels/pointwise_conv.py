"""A 1x1 convolution with the moments of its result.

A wider result is not read in the backward pass. With slope b and constant a of
what comes back through the moments, the cotangent of y = x W is dy + a + y b,
and y b is linear in x:

    dx = dy W' + a W' + x (W b W')
    dW = x' dy + sum(x)' a + (x' x) W b

The products with x are as narrow as x, and centring it keeps the sums from
cancelling.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from .bands import channels_of_band, over_bands, sum_bands
from .channel_moments import channel_moments, with_known_count
from .layout import check_image
from .manual_axes import match_varying
from .moments import Moments
from .products import (
  block_diagonal,
  product,
  sum_of_products,
  within_bands,
)
from .recompute import recompute_from

_OP = "pointwise_conv_bn"
_F32 = jnp.float32
_dot_f32 = partial(jnp.dot, precision=lax.Precision.HIGHEST)


def pointwise_conv_bn(
  x: jax.Array, kernel: jax.Array, *, bands: int = 1
) -> tuple[jax.Array, Moments]:
  """1x1 convolution, and what the batch norm behind it needs.

  Equivalent to `y = x @ kernel` and `channel_moments(y)`, summed in float32.
  Where y has more channels than x only x is kept for the backward pass. For
  policies of `jax.checkpoint` the moments have the name of this function.

  Args:
    x: `[h, w, n, c]`, floating.
    kernel: `[c, d]`, of x's dtype.
    bands: Of the image, among x's channels, as `to_bands` lays them; y's are
      laid likewise.

  Returns:
    y, `[h, w, n, d]`, of x's dtype, and its `Moments`.

  Raises:
    ValueError: shapes or dtypes that do not fit each other.

  Source: Sandler et al. 2018 for the expansion; batch norm's moments of it from
  those of its input are linear algebra.

  >>> import jax.numpy as jnp
  >>> y, moments = pointwise_conv_bn(jnp.ones((2, 2, 1, 3)), jnp.ones((3, 8)))
  >>> y.shape, y[0, 0, 0, 0].item(), moments.mean[0].item()
  ((2, 2, 1, 8), 3.0, 3.0)
  """
  check_image(_OP, x, "HWNC", bands)
  check_kernel(_OP, x, kernel, bands)
  x, kernel = match_varying(x, kernel)
  with jax.named_scope(_OP):
    if kernel.shape[1] > kernel.shape[0]:
      y, moments = _expansion(x, kernel, bands)
    else:
      y = product(x, block_diagonal(kernel, bands))
      moments = channel_moments(y, bands=bands)
  return y, with_known_count(checkpoint_name(moments, _OP), y)


def check_kernel(op: str, x: jax.Array, kernel: jax.Array, bands: int) -> None:
  """Checks a 1x1 convolution's kernel.

  Raises:
    ValueError: with the shapes and dtypes in it.
  """
  c = channels_of_band(op, x, bands)
  if kernel.ndim != 2 or kernel.shape[0] != c or kernel.shape[1] == 0:
    raise ValueError(
      f"{op}: kernel must have shape ({c}, d) for x of shape {x.shape} in "
      f"{bands} bands, got {kernel.shape}"
    )
  if kernel.dtype != x.dtype:
    raise ValueError(
      f"{op}: the kernel is {kernel.dtype} but x is {x.dtype}; cast one of them"
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _expansion(x, kernel, bands) -> tuple[jax.Array, Moments]:
  y = product(x, block_diagonal(kernel, bands))
  # The mean over the middle row, from x, so that XLA:TPU sums about it in the
  # loop that makes y: v3, 29x29x32x128 to 768 channels, 403 to 120 us.
  pivot = _dot_f32(_middle(x, bands)[None], kernel.astype(_F32))[0]
  return y, channel_moments(y, pivot=pivot, bands=bands)


def _middle(x, bands) -> jax.Array:
  """The mean of x's middle row, over all bands, `[c]` float32."""
  row = x[x.shape[0] // 2].astype(_F32)
  return sum_bands(row.mean((0, 1)), bands) / bands


def _forward(x, kernel, bands):
  return _expansion(x, kernel, bands), (x, kernel)


def _backward(bands, residuals, cotangents):
  (x, kernel), (dy, dmoments) = recompute_from(residuals, cotangents)
  count = x.size // kernel.shape[0]
  weights = kernel.astype(_F32)
  scaled = weights * (2 * dmoments.m2)[None]
  through = _dot_f32(scaled, weights.T)  # W b W'

  middle = _middle(x, bands)
  centred = x.astype(_F32) - over_bands(middle, bands)[None, None, None]
  centred = centred.astype(x.dtype)
  shift = sum_bands(centred.astype(_F32).sum((0, 1, 2)), bands) / count

  constant = _dot_f32(dmoments.mean[None] / count, weights.T)
  constant = constant - _dot_f32(shift[None], through)
  dx = sum_of_products(
    (dy, block_diagonal(kernel.T, bands)),
    (centred, block_diagonal(through.astype(x.dtype), bands)),
  )
  dx = dx + over_bands(constant, bands)[None, None]

  gram = within_bands(centred, centred, bands)
  gram = gram - count * shift[:, None] * shift[None]
  dkernel = within_bands(x, dy, bands) + _dot_f32(gram, scaled)
  dkernel = dkernel + (middle + shift)[:, None] * dmoments.mean[None]
  return dx.astype(x.dtype), dkernel.astype(kernel.dtype)


_expansion.defvjp(_forward, _backward)
