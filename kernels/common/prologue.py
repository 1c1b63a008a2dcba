"""The pending batch norm on an op's way in: scale, offset, activation."""

import jax
import jax.numpy as jnp
from jax import lax

from .activation import Activation, activate, derivative
from .channel_sums import channel_sums
from .layout import Layout, per_channel


def prologue(
  x: jax.Array,
  scale: jax.Array | None,
  offset: jax.Array | None,
  activation: Activation,
  layout: Layout,
) -> jax.Array:
  """`activation(x * scale + offset)` in float32; None leaves a part out."""
  return activate(_affine(x, scale, offset, layout), activation)


def prologue_gradient(
  dz: jax.Array,
  x: jax.Array,
  scale: jax.Array | None,
  offset: jax.Array | None,
  activation: Activation,
  layout: Layout,
) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
  """The cotangents of `prologue`'s arrays, given its result's.

  Returns:
    dx in x's dtype, d(scale) and d(offset) in float32; None for each that is
    None.
  """
  u = _affine(x, scale, offset, layout)
  du = dz.astype(jnp.float32) * derivative(u, activation)
  if scale is None and offset is None:
    return du.astype(x.dtype), None, None
  # Read by two loops on CPU, and costly to compute twice. XLA:TPU fuses all of
  # it to one pass, where a barrier would write du to memory in float32.
  du = lax.platform_dependent(
    du, cpu=lax.optimization_barrier, default=lambda du: du
  )
  dscale, doffset = channel_sums(
    lambda du, x: (du * x.astype(jnp.float32), du), du, x, layout=layout
  )
  if scale is None:
    return du.astype(x.dtype), None, doffset
  dx = (du * per_channel(scale, layout)).astype(x.dtype)
  return dx, dscale, None if offset is None else doffset


def _affine(x, scale, offset, layout):
  u = x.astype(jnp.float32)
  if scale is not None:
    u = u * per_channel(scale, layout)
  if offset is not None:
    u = u + per_channel(offset, layout)
  return u
