"""Previous batch norm, applied to an op's input: scale, offset, activation."""

import jax
import jax.numpy as jnp
from jax import lax

from .activation import Activation, activate, derivative
from .channel_sums import channel_sums
from .layout import Layout, per_channel


def fill_affine(
  scale: jax.Array | None, offset: jax.Array | None, channels: int
) -> tuple[jax.Array, jax.Array]:
  """Replace a scale of None by ones, and an offset of None by zeros.

  XLA leaves a factor of constant ones out.
  """
  if scale is None:
    scale = jnp.ones(channels, jnp.float32)
  if offset is None:
    offset = jnp.zeros(channels, jnp.float32)
  return scale, offset


def prologue(
  x: jax.Array,
  scale: jax.Array | None,
  offset: jax.Array | None,
  activation: Activation,
  layout: Layout,
) -> jax.Array:
  """Compute `activation(x * scale + offset)` in float32.

  Each of scale, offset and activation may be None, which leaves it out.
  """
  return activate(_affine(x, scale, offset, layout), activation)


def prologue_gradient(
  dz: jax.Array,
  x: jax.Array,
  scale: jax.Array | None,
  offset: jax.Array | None,
  activation: Activation,
  layout: Layout,
) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
  """Compute the cotangents of `prologue`'s arguments.

  Args:
    dz: Cotangent of the result.
    x: Activation of `layout`.
    scale: Scale, float32 `[c]` or None.
    offset: Offset, float32 `[c]` or None.
    activation: One of `Activation`.
    layout: Order of x's axes, 'HWNC' or 'HWCN'.

  Returns:
    dx in x's dtype, dscale and doffset in float32; None for an argument that is
    None.
  """
  u = _affine(x, scale, offset, layout)
  du = dz.astype(jnp.float32) * derivative(u, activation)
  if scale is None and offset is None:
    return du.astype(x.dtype), None, None
  # XLA:CPU would compute du in both of the loops that read it. XLA:TPU fuses
  # them to one pass, and a barrier would write du to memory in float32.
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
