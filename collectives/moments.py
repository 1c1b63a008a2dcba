"""Batch-norm moments of a group, merged from the moments of its members."""

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
  """Merge the moments of all devices along `axis_name`.

  With n, mean and m2 of each member, and a pivot p that all members share, the
  merge takes one all-reduce of 2 c values::

    s1, s2 = psum(n * (mean - p)), psum(m2 + n * (mean - p)**2)
    count  = psum(n)
    mean   = p + s1 / count
    m2     = s2 - s1**2 / count

  The rounding error of the variance grows with `((mean - p) / std)**2`; with
  batch norm's running mean as the pivot it is negligible. Without a pivot one
  all-gather collects the moments of all members, which are then merged about
  the mean of their means. This does not cancel for any mean, but every device
  receives 2 c values from every other, which costs more in large groups.

  A member with count 0 contributes nothing, whatever its mean and m2 hold; in a
  group of such members m2 is 0. A count that is not traced, as the ops of
  `podscale.kernels` return it, is the same on all devices and is not sent.

  The backward pass takes one all-reduce, over the cotangents of mean and m2.
  Counts and pivot are constants to differentiation. The result is the same on
  all members but typed as varying over the axis. It is named "group_moments"
  for the policies of `jax.checkpoint`.

  Args:
    moments: Moments of this device: count float32 scalar, mean and m2 float32
      `[c]`.
    axis_name: Mesh axis, or axes, of a group.
    pivot: Value near the mean that deviations are measured from, float32 `[c]`,
      equal on all members; None to gather the moments instead.
    implementation: Implementation of the all-reduces; see `all_reduce`.

  Returns:
    Moments of the whole group, on each of its members.

  Raises:
    ValueError: A shape or dtype differs from the above, a count that is not
      traced is negative or not finite, the axis is not a mesh axis, or the
      implementation is unknown.
    NotImplementedError: "pallas_tpu" without a pivot, or not supported here.

  >>> from podscale.collectives import ALL_DEVICES, group_mesh
  >>> mesh = group_mesh(jax.devices()[:1])
  >>> P = jax.sharding.PartitionSpec
  >>> from podscale.kernels import channel_moments
  >>> mean = jax.shard_map(
  ...   lambda x: group_moments(channel_moments(x)).mean,
  ...   mesh=mesh,
  ...   in_specs=P(None, None, ALL_DEVICES),
  ...   out_specs=P(ALL_DEVICES),
  ... )
  >>> print(mean(jnp.arange(4.0).reshape(1, 1, 2, 2)))
  [1. 2.]

  Source: Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise
  algorithm for computing sample variances"; groups as in Ying et al. 2018,
  arXiv:1811.06992.
  """
  _check(moments, pivot)
  check_implementation(implementation)
  if pivot is None and implementation != "psum":
    raise NotImplementedError(
      f"group_moments: {implementation} needs a pivot, got None; pass one, "
      "such as the running mean"
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
  """Count of each member, or None if it is traced."""


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _merge(count, mean, m2, pivot, call):
  """Merge the moments of the group in one collective."""
  if pivot is None:
    count, mean, m2 = _gathered(count, mean, m2, call)
    total = jnp.sum(count)
    pivot = jnp.sum(count * mean, axis=0) / jnp.maximum(total, 1)
    sums = jnp.sum(_sums_about(pivot[None], count, mean, m2), axis=0)
  else:
    sums = _sums_about(pivot, count, mean, m2)
    total, sums = _reduced(count, sums, call)
  deviations, squares = jnp.split(sums, 2)
  shift = deviations / jnp.maximum(total, 1)
  # Rounding alone makes this negative.
  m2 = jnp.maximum(squares - deviations * shift, 0)
  return Moments(total, pivot + shift, m2)


def _sums_about(pivot, count, mean, m2):
  """Sum deviations and their squares: [2 c], or [members, 2 c]."""
  deviation = mean - pivot
  deviations = count * deviation
  squares = m2 + deviations * deviation
  return jnp.concatenate([deviations, squares], axis=-1)


def _gathered(count, mean, m2, call):
  """Gather count [members, 1], mean and m2 [members, c] of all members."""
  values = [mean, m2] if call.known is not None else [mean, m2, count[None]]
  gathered = lax.all_gather(jnp.concatenate(values), call.axes)
  c = mean.size
  if call.known is None:
    count = gathered[:, 2 * c :]
  else:
    count = jnp.full((len(gathered), 1), call.known, jnp.float32)
  return count, gathered[:, :c], gathered[:, c : 2 * c]


def _reduced(count, sums, call):
  """Reduce the count and the sums over the group."""
  if call.known is not None:
    total = call.known * lax.axis_size(call.axes)
    return jnp.float32(total), _all_reduce(sums, call)
  sums = _all_reduce(jnp.append(sums, count), call)
  return sums[-1], sums[:-1]


def _all_reduce(x, call):
  return all_reduce(x, call.axes, implementation=call.implementation)


def _forward(count, mean, m2, pivot, call):
  merged = _merge(count, mean, m2, pivot, call)
  # Name the residual too, so that jax.checkpoint does not reduce it again.
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
      "moments need a scalar count, and mean and m2 of one shape [c], got "
      f"shapes {count.shape}, {mean.shape} and {m2.shape}"
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
      f"the pivot must be float32 {mean.shape}, as the mean, got "
      f"{pivot.dtype} {pivot.shape}"
    )
  known = _known(count)
  if known is not None and not 0 <= known < math.inf:
    raise ValueError(f"the count of moments must be 0 or more, got {known}")
