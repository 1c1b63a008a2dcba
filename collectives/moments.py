"""Batch-norm moments of a group of devices from those of its members."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ..kernels.moments import Moments
from .mesh import MEMBER
from .varying import device_varying


def group_moments(
  moments: Moments, axis_name: str | Sequence[str] = MEMBER
) -> Moments:
  """Merges the moments of all devices along `axis_name`.

  With n, mean and m2 of each member this is::

    count = psum(n)
    mean  = psum(n * mean_of_member) / count
    m2    = psum(m2_of_member + n * (mean_of_member - mean)**2)

  which has no cancellation however large the mean, and takes members with
  different counts. A member whose count is 0 adds nothing, whatever its mean
  and m2 hold; a group without any value has mean 0 and m2 0.

  Two all-reduces forward and one backward; an axis of size 1 costs none.
  Counts are constants to differentiation. The result is equal on all members
  but typed as varying over the axis: so the cotangents of mean and m2 come
  back here, packed, for that one all-reduce, and an op that knows no axes (a
  `custom_vjp`) sees the same type on all its arguments.

  Args:
    moments: of this device; count float32 scalar, mean and m2 float32 `[c]`.
    axis_name: the mesh axis, or axes, of a group.

  Returns:
    The moments of the whole group, on each of its members.

  Raises:
    ValueError: the shapes or dtypes are not those above.

  Source: Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise
  algorithm for computing sample variances"; groups as in Ying et al. 2018,
  arXiv:1811.06992.
  """
  _check(moments)
  with jax.named_scope("group_moments"):
    count, mean, m2 = device_varying(moments, axis_name)
    count = lax.stop_gradient(count)
    mean = jnp.where(count > 0, mean, 0)
    m2 = jnp.where(count > 0, m2, 0)
    if lax.axis_size(axis_name) == 1:
      return Moments(count, mean, m2)

    sums = lax.psum(jnp.append(count * mean, count), axis_name)
    group_count = lax.stop_gradient(sums[-1])
    group_mean = sums[:-1] / jnp.maximum(group_count, 1)
    # The sum of count * deviation is 0, so m2 does not depend on group_mean to
    # first order: without the path through it, one all-reduce less backward.
    deviation = mean - lax.stop_gradient(group_mean)
    group_m2 = lax.psum(m2 + count * deviation**2, axis_name)

    # Cast as one array, which is transposed to one all-reduce.
    packed = device_varying(jnp.concatenate([group_mean, group_m2]), axis_name)
    return Moments(
      device_varying(group_count, axis_name), *jnp.split(packed, 2)
    )


def _check(moments: Moments) -> None:
  count, mean, m2 = moments
  if count.shape != () or mean.ndim != 1 or mean.shape != m2.shape:
    raise ValueError(
      "moments need a scalar count and mean and m2 of one shape [c], got "
      f"{count.shape}, {mean.shape} and {m2.shape}"
    )
  if any(x.dtype != jnp.float32 for x in moments):
    raise ValueError(
      f"moments must be float32, got count {count.dtype}, mean {mean.dtype}, "
      f"m2 {m2.dtype}"
    )
