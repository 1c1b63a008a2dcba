"""The pending batch norm at a kernel's input, on registers.

With `u = x * scale + offset` and `h = u / 2`, silu is `h * (1 + tanh(h))`.
Scale and offset hold the factor 1/2 already, so that it costs nothing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..tpu.registers import TILE
from .activation import Activation, activate, derivative


class Prologue(NamedTuple):
  """Prologue of a group of channels.

  Attributes:
    scale: Scale in every sublane, halved for silu; None for 1.
    offset: Offset in every sublane, halved for silu; None for 0.
    activation: Activation after scale and offset.
  """

  scale: jax.Array | None
  offset: jax.Array | None
  activation: Activation

  def __call__(self, x: jax.Array) -> jax.Array:
    """Compute the activation of a register."""
    u = self._affine(x)
    if self.activation == "silu":
      return u * (1 + jnp.tanh(u))
    return activate(u, self.activation)

  def with_slope(self, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """Compute the activation and its slope.

    Returns:
      `activation(u)`, and its derivative with respect to u divided by
      `slope_factor`; None for a derivative of 1.
    """
    u = self._affine(x)
    if self.activation == "silu":
      t = jnp.tanh(u)
      more = 1 + t
      z = u * more
      return z, more + z * (1 - t)
    if self.activation is None:
      return u, None
    return activate(u, self.activation), derivative(u, self.activation)

  @property
  def slope_factor(self) -> float:
    """Factor from the slopes of `with_slope` to derivatives."""
    return 0.5 if self.activation == "silu" else 1.0

  def _affine(self, x):
    u = x if self.scale is None else x * self.scale
    return u if self.offset is None else u + self.offset


def make_prologue(
  scale: jax.Array | None, offset: jax.Array | None, activation: Activation
) -> Prologue:
  """Make the prologue of a group of channels from its scale and offset."""
  if activation == "silu":
    # silu needs x / 2 without a scale, too.
    scale = jnp.full(TILE, 0.5) if scale is None else 0.5 * scale
    offset = None if offset is None else 0.5 * offset
  return Prologue(scale, offset, activation)
