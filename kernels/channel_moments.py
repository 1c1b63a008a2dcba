"""The moments of a tensor, and how their cotangents reach it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from .bands import merge_bands, over_bands
from .layout import Layout, check_image, per_channel, sum_axes
from .moments import Moments
from .sums import channel_sums


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
  return with_known_count(merge_bands(moments, bands), x)


def with_known_count(moments: Moments, x: jax.Array) -> Moments:
  """The moments of x with a count that is not traced."""
  return moments._replace(count=np.float32(x.size // moments.mean.size))


def moments_of(
  x: jax.Array, layout: Layout, pivot: jax.Array | None = None
) -> Moments:
  """The moments, from sums of deviations from a pivot.

  The pivot is the mean of the middle row, where none is given. The mean of a
  subset that is 1/h of the data lies at most sqrt(h - 1) standard deviations
  from the mean of all, so at most h times the result cancels in `m2`, whatever
  the mean is.
  """
  if pivot is None:
    # Cut before it is cast, or XLA:TPU writes all of x in float32.
    middle = x[x.shape[0] // 2][None].astype(jnp.float32)
    pivot = jnp.mean(middle, axis=sum_axes(layout), keepdims=True)
  x = x.astype(jnp.float32)

  def deviations(x):
    d = x - pivot
    return d, d * d

  first, second = channel_sums(deviations, x, layout=layout)
  count = x.size // pivot.size
  shift = first / count
  m2 = jnp.maximum(second - first * shift, 0)
  return Moments(jnp.float32(count), pivot.reshape(-1) + shift, m2)


def moments_cotangent(
  dmoments: Moments, x: jax.Array, moments: Moments, layout: Layout
) -> jax.Array:
  """What the cotangents of x's moments send to x, in float32.

  With n values per channel, d(mean)/dx = 1/n and d(m2)/dx = 2 (x - mean): a
  per-channel affine of x. The count depends on x's shape only, so its
  cotangent is not used.
  """
  slope = 2 * dmoments.m2
  constant = dmoments.mean / moments.count - slope * moments.mean
  slope, constant = per_channel(slope, layout), per_channel(constant, layout)
  return slope * x.astype(jnp.float32) + constant


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _channel_moments(x, pivot, layout):
  return moments_of(x, layout, pivot)


def _forward(x, pivot, layout):
  moments = moments_of(x, layout, pivot)
  return moments, (x, moments)


def _backward(layout, residuals, dmoments):
  x, moments = residuals
  dx = moments_cotangent(dmoments, x, moments, layout).astype(x.dtype)
  return dx, None


_channel_moments.defvjp(_forward, _backward)
