"""The pending batch norm on a kernel's way in, on registers.

For silu, `u = x * scale + offset` is taken half: with h = u / 2,
silu(u) = h * (1 + tanh(h)), and the half costs nothing when it is in scale and
offset already.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..tpu.registers import TILE
from .activation import Activation


class Prologue(NamedTuple):
  """Scale and offset in every sublane, halved for silu; None where absent."""

  scale: jax.Array | None
  offset: jax.Array | None
  activation: Activation

  def __call__(self, x: jax.Array) -> jax.Array:
    """The activation of a register."""
    u = self._affine(x)
    if self.activation == "silu":
      return u * (1 + jnp.tanh(u))
    if self.activation == "relu":
      return jnp.maximum(u, 0)
    return u

  def with_slope(self, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """The activation, and its derivative by the full u; None is 1.

    Silu's slope is twice the derivative: `slope_factor` has the half.
    """
    u = self._affine(x)
    if self.activation == "silu":
      t = jnp.tanh(u)
      more = 1 + t
      z = u * more
      return z, more + z * (1 - t)
    if self.activation == "relu":
      return jnp.maximum(u, 0), jnp.where(u > 0, 1.0, 0.0)
    return u, None

  @property
  def slope_factor(self) -> float:
    """What the slopes of `with_slope` are to be multiplied by."""
    return 0.5 if self.activation == "silu" else 1.0

  def _affine(self, x):
    u = x if self.scale is None else x * self.scale
    return u if self.offset is None else u + self.offset


def make_prologue(
  scale: jax.Array | None, offset: jax.Array | None, activation: Activation
) -> Prologue:
  """The prologue of a group of channels, from registers or None."""
  if activation == "silu":
    # Without a scale silu still takes half of x.
    scale = jnp.full(TILE, 0.5) if scale is None else 0.5 * scale
    offset = None if offset is None else 0.5 * offset
  return Prologue(scale, offset, activation)
