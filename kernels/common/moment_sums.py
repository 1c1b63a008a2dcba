"""Moments from sums over each channel, and their derivative."""

import jax
import jax.numpy as jnp
import numpy as np

from .channel_sums import channel_sums
from .layout import Layout, per_channel, sum_axes
from .moments import Moments


def with_static_count(moments: Moments, x: jax.Array) -> Moments:
  """Replace the count of x's moments by a NumPy scalar, known in tracing.

  A count of symbolic dimensions, as in `jax.export`, stays a traced scalar.
  """
  count = x.size // moments.mean.size
  if not isinstance(count, int):
    return moments._replace(count=jnp.asarray(count, jnp.float32))
  return moments._replace(count=np.float32(count))


def compute_moments(
  x: jax.Array, layout: Layout, shift: jax.Array | None = None
) -> Moments:
  """Compute the moments from sums of deviations from a shift.

  The default shift is the mean of the middle row. The mean of 1/h of the data
  is at most sqrt(h - 1) standard deviations from the mean of all data, so at
  most h times the result cancels in `m2`, whatever the mean is.

  Args:
    x: Activation of `layout`.
    layout: Order of the axes, 'HWNC' or 'HWCN'.
    shift: Value near the mean of each channel, float32, shaped to broadcast
      against x; None for the default.
  """
  if shift is None:
    # Slice before the cast, or XLA:TPU writes all of x in float32.
    middle = x[x.shape[0] // 2][None].astype(jnp.float32)
    shift = jnp.mean(middle, axis=sum_axes(layout), keepdims=True)
  x = x.astype(jnp.float32)

  def deviations(x):
    deviation = x - shift
    return deviation, deviation * deviation

  total, squares = channel_sums(deviations, x, layout=layout)
  count = jnp.asarray(x.size // shift.size, jnp.float32)
  mean_deviation = total / count
  m2 = jnp.maximum(squares - total * mean_deviation, 0)
  return Moments(count, shift.reshape(-1) + mean_deviation, m2)


def add_moments_cotangent(
  dx: jax.Array,
  dmoments: Moments | None,
  x: jax.Array | None,
  moments: Moments | None,
  layout: Layout,
) -> jax.Array:
  """Add the cotangent through x's moments to that of x, in float32.

  Without moments this returns dx.
  """
  if dmoments is None or x is None or moments is None:
    return dx
  return dx.astype(jnp.float32) + moments_cotangent(
    dmoments, x, moments, layout
  )


def moments_cotangent(
  dmoments: Moments, x: jax.Array, moments: Moments, layout: Layout
) -> jax.Array:
  """Compute the cotangent of x from those of its moments, in float32.

  With n values per channel, d(mean)/dx = 1/n and d(m2)/dx = 2 (x - mean), so
  the cotangent is an affine function of x per channel. The count depends on
  x's shape only, so its cotangent is not used.
  """
  # Not moments.count: a second derivative would differentiate by it.
  count = jnp.asarray(x.size // moments.mean.size, jnp.float32)
  slope = 2 * dmoments.m2
  intercept = dmoments.mean / count - slope * moments.mean
  slope, intercept = per_channel(slope, layout), per_channel(intercept, layout)
  return slope * x.astype(jnp.float32) + intercept
