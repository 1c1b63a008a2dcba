"""The depthwise convolution as one grouped convolution, in plain JAX.

XLA:TPU has special code for convolutions with one feature per group, and fuses
the prologue and the moments into it.
"""

import jax
import jax.numpy as jnp
from jax import lax

from ...common.layout import sum_axes
from ...common.moment_sums import add_moments_cotangent, compute_moments
from ...common.prologue import prologue, prologue_gradient
from ...common.recompute import recompute_from
from ..settings import Call, Gradients, Residuals, Results


def forward(
  x: jax.Array,  # [h, w, n, c] or [h, w, c, n]
  filters: jax.Array,  # [kh, kw, c]
  scale: jax.Array | None,  # [c]
  offset: jax.Array | None,  # [c]
  call: Call,
) -> Results:
  """See `podscale.kernels.depthwise_conv_bn`."""
  settings = call.settings
  z = _activated(x, scale, offset, settings)
  y = _convolve(z, filters, settings)
  if not settings.moments:
    return y.astype(x.dtype), None
  shift = _near_mean(z, filters, settings)
  return y.astype(x.dtype), compute_moments(y, settings.layout, shift)


def backward(
  residuals: Residuals, cotangents: Results, call: Call
) -> Gradients:
  """Compute the gradients of x, filters, scale and offset, in their dtypes."""
  residuals, cotangents = recompute_from(residuals, cotangents)
  x, filters, scale, offset, y, moments = residuals
  dy, dmoments = cotangents
  settings = call.settings
  layout = settings.layout
  dy = add_moments_cotangent(dy, dmoments, y, moments, layout)
  z = _activated(x, scale, offset, settings)
  _, transposed = jax.vjp(
    lambda z, filters: _convolve(z, filters, settings).astype(x.dtype),
    z,
    filters,
  )
  dz, dfilters = transposed(dy.astype(x.dtype))
  dx, dscale, doffset = prologue_gradient(
    dz, x, scale, offset, settings.activation, layout
  )
  return dx, dfilters, dscale, doffset


def _activated(x, scale, offset, settings):
  z = prologue(x, scale, offset, settings.activation, settings.layout)
  return z.astype(x.dtype)


def _convolve(z, filters, settings, row_padding=None):
  """Convolve, to float32; `row_padding` overrides the settings' padding."""
  layout = settings.layout
  rows, cols = settings.windows(z, filters)
  return lax.conv_general_dilated(
    z,
    filters[:, :, None],
    settings.strides,
    [row_padding or (rows.low, rows.high), (cols.low, cols.high)],
    rhs_dilation=settings.dilations,
    feature_group_count=filters.shape[2],
    dimension_numbers=(layout, "HWIO", layout),
    preferred_element_type=jnp.float32,
  )


def _near_mean(z, filters, settings):
  """Compute the mean of a row of outputs, `[1, 1, 1, c]` in HWNC.

  The row is one that reads the middle of the image. It is convolved once more:
  if its mean came from the outputs, XLA could not add up the moments while it
  convolves.
  """
  rows, _ = settings.windows(z, filters)
  middle = (rows.size // 2 + rows.low - rows.extent // 2) // rows.stride
  first = min(max(middle, 0), rows.out - 1) * rows.stride - rows.low
  stop = first + rows.extent
  z = z[max(first, 0) : max(stop, 0)]
  padding = max(-first, 0), max(stop - rows.size, 0)
  row = _convolve(z, filters, settings, padding)
  return jnp.mean(row, axis=sum_axes(settings.layout), keepdims=True)
