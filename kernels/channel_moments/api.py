"""The moments of a tensor, and how their cotangents reach it."""

from functools import partial

import jax

from ..common.bands import merge_bands, over_bands
from ..common.layout import Layout, check_image, per_channel
from ..common.moment_sums import (
  compute_moments,
  moments_cotangent,
  with_static_count,
)
from ..common.moments import Moments


def channel_moments(
  x: jax.Array,
  *,
  pivot: jax.Array | None = None,
  layout: Layout = "HWNC",
  bands: int = 1,
) -> Moments:
  """Per-channel count, mean and sum of squared deviations of `x`.

  Equivalent to `Moments(n, mean, jnp.square(x - mean).sum((0, 1, 2)))` with
  `mean = x.mean((0, 1, 2))`, but reads x once, after its middle row.

  Args:
    x: `[h, w, n, c]` (HWNC) or `[h, w, c, n]` (HWCN), floating.
    pivot: `[c]` float32, of which the deviations are summed; None takes the
      mean of x's middle row. One that does not depend on x, but is near the
      mean, lets XLA make the sums in the loop that makes x. The result depends
      on it in its rounding only, and no gradient is sent to it.
    layout: Where the batch and the channels are.
    bands: Of the image, among the channels; see `to_bands`.

  Returns:
    `Moments` in float32, `[c]`.

  Raises:
    ValueError: x has another rank, an integer dtype, or no elements; or the
      pivot has another shape or dtype.

  >>> import jax.numpy as jnp
  >>> count, mean, m2 = channel_moments(jnp.arange(4.0).reshape(4, 1, 1, 1))
  >>> float(count), float(mean[0]), float(m2[0])
  (4.0, 1.5, 5.0)
  """
  check_image("channel_moments", x, layout, bands, pivot=pivot)
  if pivot is not None:
    pivot = over_bands(jax.lax.stop_gradient(pivot), bands)
    pivot = per_channel(pivot, layout)
  moments = _channel_moments(x, pivot, layout)
  return with_static_count(merge_bands(moments, bands), x)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _channel_moments(x, pivot, layout):
  return compute_moments(x, layout, pivot)


def _forward(x, pivot, layout):
  moments = compute_moments(x, layout, pivot)
  return moments, (x, moments)


def _backward(layout, residuals, dmoments):
  x, moments = residuals
  dx = moments_cotangent(dmoments, x, moments, layout).astype(x.dtype)
  return dx, None


_channel_moments.defvjp(_forward, _backward)
