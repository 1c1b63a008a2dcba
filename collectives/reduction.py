"""Sum of a small array over mesh axes, by XLA or by a Pallas kernel."""

from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax

from .exchange import exchange_sum
from .mesh import MEMBER
from .varying import device_varying, mesh_axes

Implementation = Literal["psum", "pallas_tpu"]


def all_reduce(
  x: jax.Array,
  axis_name: str | Sequence[str] = MEMBER,
  *,
  implementation: Implementation = "psum",
) -> jax.Array:
  """Sum x over all devices along an axis.

  The forward pass takes one collective; the backward pass takes one, over the
  cotangents. The result is the same on all devices but typed as varying, which
  a function that each device differentiates by itself needs.

  Args:
    x: Values to sum, float32 of any shape. The kernel keeps a copy of each
      device in VMEM, so keep x to some kilobytes with "pallas_tpu".
    axis_name: Mesh axis, or axes, to sum over, inside `shard_map`.
    implementation: "psum" for XLA's all-reduce, or "pallas_tpu" for a kernel in
      which each device sends to all others at once (`collectives.exchange`).
      The kernel is compiled and interpreted in tests, but was never timed on a
      TPU.

  Returns:
    Sum on each device, float32 of x's shape.

  Raises:
    ValueError: x is not float32, the axis is not a mesh axis, or the
      implementation is unknown.
    NotImplementedError: "pallas_tpu" does not support this case.

  >>> from podscale.collectives import group_mesh
  >>> mesh = group_mesh(jax.devices()[:1])
  >>> P = jax.sharding.PartitionSpec
  >>> total = jax.shard_map(
  ...   all_reduce, mesh=mesh, in_specs=P(MEMBER), out_specs=P(MEMBER)
  ... )
  >>> print(total(jnp.ones(3)))  # on one device the sum is x
  [1. 1. 1.]
  """
  axes = mesh_axes(axis_name)
  check_implementation(implementation)
  if x.dtype != jnp.float32:
    raise ValueError(f"all_reduce needs float32, got {x.dtype} {x.shape}")
  x = device_varying(x, axes)
  if lax.axis_size(axes) == 1:
    return x
  with jax.named_scope("all_reduce"):
    return _all_reduce(x, axes, implementation)


def check_implementation(implementation: str) -> None:
  """Raise ValueError for an unknown implementation."""
  names = get_args(Implementation)
  if implementation not in names:
    raise ValueError(
      f"unknown implementation {implementation!r}; choose one of "
      f"{', '.join(names)}"
    )


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _all_reduce(x, axes, implementation):
  if implementation == "psum":
    return device_varying(lax.psum(x, axes), axes)
  return exchange_sum(x.reshape(-1), axes).reshape(x.shape)


def _forward(x, axes, implementation):
  return _all_reduce(x, axes, implementation), None


def _backward(axes, implementation, _, dy):
  return (_all_reduce(dy, axes, implementation),)


_all_reduce.defvjp(_forward, _backward)
