"""Moments from sums over each channel, and their derivative."""

import jax
import jax.numpy as jnp
import numpy as np

from .channel_sums import channel_sums
from .layout import Layout, per_channel, sum_axes
from .moments import Moments


def with_static_count(moments: Moments, x: jax.Array) -> Moments:
  """The moments of x with a count that is not traced."""
  return moments._replace(count=np.float32(x.size // moments.mean.size))


def compute_moments(
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
