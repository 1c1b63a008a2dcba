"""The activations that the ops apply on the way in, with their derivatives."""

from typing import Literal

import jax
import jax.numpy as jnp

Activation = Literal["silu", "relu"] | None


def check_activation(op: str, activation: Activation) -> None:
  """Raises ValueError for an activation that there is not."""
  if activation not in ("silu", "relu", None):
    raise ValueError(
      f"{op}: activation must be 'silu', 'relu' or None, got {activation!r}"
    )


def activate(u: jax.Array, activation: Activation) -> jax.Array:
  """The activation of `u`, elementwise, in the dtype of `u`."""
  if activation == "silu":
    # u * sigmoid(u), with one transcendental and no division.
    half = 0.5 * u
    return half * jnp.tanh(half) + half
  if activation == "relu":
    return jnp.maximum(u, 0)
  return u


def derivative(u: jax.Array, activation: Activation) -> jax.Array:
  """The derivative of `activate` at `u`; relu's is 0 at 0."""
  if activation == "silu":
    sigmoid = 0.5 * jnp.tanh(0.5 * u) + 0.5
    return sigmoid * (1 + u * (1 - sigmoid))
  if activation == "relu":
    return (u > 0).astype(u.dtype)
  return jnp.ones_like(u)
