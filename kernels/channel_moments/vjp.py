"""Derivative of the moments: it keeps x and the moments."""

from functools import partial

import jax

from ..common.layout import Layout
from ..common.moment_sums import compute_moments, moments_cotangent
from ..common.moments import Moments


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def moments_about(
  x: jax.Array,  # [h, w, n, c] or [h, w, c, n]
  shift: jax.Array | None,  # broadcasts against x
  layout: Layout,
) -> Moments:
  """Compute the moments of x from deviations from a shift."""
  return compute_moments(x, layout, shift)


def _forward(x, shift, layout):
  moments = compute_moments(x, layout, shift)
  return moments, (x, moments)


def _backward(layout, residuals, dmoments):
  x, moments = residuals
  dx = moments_cotangent(dmoments, x, moments, layout).astype(x.dtype)
  return dx, None


moments_about.defvjp(_forward, _backward)
