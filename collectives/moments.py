"""Batch-norm moments of a group of devices from those of its members."""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from ..kernels import Moments
from .mesh import MEMBER
from .reduction import Implementation, all_reduce, check_implementation
from .varying import device_varying, mesh_axes


def group_moments(
  moments: Moments,
  axis_name: str | Sequence[str] = MEMBER,
  *,
  pivot: jax.Array | None = None,
  implementation: Implementation = "psum",
) -> Moments:
  """Merges the moments of all devices along `axis_name`.

  With n, mean and m2 of each member, and a pivot p that all of them know, this
  takes one all-reduce of 2 c values::

    s1, s2 = psum(n * (mean - p)), psum(m2 + n * (mean - p)**2)
    count  = psum(n)
    mean   = p + s1 / count
    m2     = s2 - s1**2 / count

  The error of the variance grows as `((mean - p) / std)**2` of a rounding; with
  batch norm's running mean for a pivot it is none to speak of. Without a pivot
  the members' moments are gathered, in one all-gather, and merged about the
  mean of their means. That has no cancellation however large the mean is, but
  each device gets 2 c values of every other, which in large groups costs more.

  A member whose count is 0 adds nothing, whatever its mean and m2 hold; a group
  without any value has m2 0. A count that is not traced, as the ops of
  `podscale.kernels` return it, is the same on all devices and is not sent.

  Backward one all-reduce, of the cotangents of mean and m2. Counts and pivot
  are constants to differentiation. The result is the same on all members but
  typed as varying over the axis. For policies of `jax.checkpoint` it has the
  name of this function.

  Args:
    moments: of this device; count float32 scalar, mean and m2 float32 `[c]`.
    axis_name: the mesh axis, or axes, of a group.
    pivot: float32 `[c]`, equal on all members, and near the mean.
    implementation: of the all-reduces; see `all_reduce`.

  Returns:
    The moments of the whole group, on each of its members.

  Raises:
    ValueError: the shapes or dtypes are not those above, a count that is not
      traced is negative or not finite, or there is no such axis or
      implementation.
    NotImplementedError: "pallas_tpu" without a pivot, or where it cannot.

  Source: Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise
  algorithm for computing sample variances"; groups as in Ying et al. 2018,
  arXiv:1811.06992.
  """
  _check(moments, pivot)
  check_implementation(implementation)
  if pivot is None and implementation != "psum":
    raise NotImplementedError(
      f"group_moments: {implementation} sums about a pivot, and there is none; "
      "pass one, such as the running mean"
    )
  count, mean, m2 = moments
  axes = mesh_axes(axis_name)
  call = _Call(axes, implementation, _known(count))
  members = lax.axis_size(axes)
  with jax.named_scope("group_moments"):
    if call.known is None:
      mean, m2 = (jnp.where(count > 0, x, 0) for x in (mean, m2))
    args = device_varying((count, mean, m2, pivot), axes)
    merged = Moments(*args[:3]) if members == 1 else _merge(*args, call)
  if call.known is None:
    return merged
  return merged._replace(count=np.float32(call.known * members))


class _Call(NamedTuple):
  axes: tuple[str, ...]
  implementation: Implementation
  known: float | None
  """The count of each member, where it is not traced."""


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _merge(count, mean, m2, pivot, call):
  """The moments of the group, in one collective."""
  if pivot is None:
    count, mean, m2 = _gathered(count, mean, m2, call)
    total = jnp.sum(count)
    pivot = jnp.sum(count * mean, axis=0) / jnp.maximum(total, 1)
    sums = jnp.sum(_sums_about(pivot[None], count, mean, m2), axis=0)
  else:
    sums = _sums_about(pivot, count, mean, m2)
    total, sums = _reduced(count, sums, call)
  first, second = jnp.split(sums, 2)
  shift = first / jnp.maximum(total, 1)
  # What lies below 0 is rounding.
  m2 = jnp.maximum(second - first * shift, 0)
  return Moments(total, pivot + shift, m2)


def _sums_about(pivot, count, mean, m2):
  """[2 c], or [members, 2 c] of all of them."""
  deviation = mean - pivot
  first = count * deviation
  return jnp.concatenate([first, m2 + first * deviation], axis=-1)


def _gathered(count, mean, m2, call):
  """Count [members, 1], mean and m2 [members, c] of all members."""
  values = [mean, m2] if call.known is not None else [mean, m2, count[None]]
  gathered = lax.all_gather(jnp.concatenate(values), call.axes)
  c = mean.size
  if call.known is None:
    count = gathered[:, 2 * c :]
  else:
    count = jnp.full((len(gathered), 1), call.known, jnp.float32)
  return count, gathered[:, :c], gathered[:, c : 2 * c]


def _reduced(count, sums, call):
  """The count and the sums of the group."""
  if call.known is not None:
    total = call.known * lax.axis_size(call.axes)
    return jnp.float32(total), _all_reduce(sums, call)
  sums = _all_reduce(jnp.append(sums, count), call)
  return sums[-1], sums[:-1]


def _all_reduce(x, call):
  return all_reduce(x, call.axes, implementation=call.implementation)


def _forward(count, mean, m2, pivot, call):
  merged = _merge(count, mean, m2, pivot, call)
  # Here, or what the backward pass has of it would be reduced again.
  merged = checkpoint_name(merged, "group_moments")
  return merged, (count, mean, merged)


def _backward(call, residuals, cotangents):
  count, mean, group = residuals
  packed = _all_reduce(jnp.concatenate([cotangents.mean, cotangents.m2]), call)
  dmean, dm2 = jnp.split(packed, 2)
  slope = 2 * count * (mean - group.mean)
  dmean = count / jnp.maximum(group.count, 1) * dmean + slope * dm2
  return None, dmean, dm2, None


_merge.defvjp(_forward, _backward)


def _known(count) -> float | None:
  return None if isinstance(count, jax.core.Tracer) else float(count)


def _check(moments: Moments, pivot: jax.Array | None) -> None:
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
  if pivot is not None and (pivot.shape, pivot.dtype) != (
    mean.shape,
    mean.dtype,
  ):
    raise ValueError(
      f"the pivot must be float32 of mean's shape {mean.shape}, got "
      f"{pivot.dtype} {pivot.shape}"
    )
  known = _known(count)
  if known is not None and not 0 <= known < math.inf:
    raise ValueError(f"the count of moments must be 0 or more, got {known}")
