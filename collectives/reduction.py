"""The sum of a small array over an axis, by XLA or by our own kernel."""

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
  """The sum of x over all devices along an axis, on each of them.

  One collective forward and one backward, whose sum is of the cotangents. The
  result is the same on all devices but typed as varying, as a function that is
  differentiated on each device by itself needs it.

  Args:
    x: float32, any shape; of some kilobytes where the kernel is asked for, for
      it keeps a copy from each device in VMEM.
    axis_name: the mesh axis, or axes, to sum over, inside `shard_map`.
    implementation: "psum" is XLA's; "pallas_tpu" is a kernel in which all
      devices send to all others at once (`collectives.exchange`). The kernel
      was compiled and interpreted, but never timed on a TPU.

  Returns:
    float32, of x's shape.

  Raises:
    ValueError: x is not float32, there is no such axis, or no such
      implementation.
    NotImplementedError: the kernel is asked for and cannot do this.
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
  """Raises ValueError where there is no such implementation."""
  names = get_args(Implementation)
  if implementation not in names:
    raise ValueError(
      f"no implementation {implementation!r}; there are {', '.join(names)}"
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
