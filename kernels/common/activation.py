"""Activations that ops apply to their inputs, and their derivatives."""

from typing import Literal

import jax
import jax.numpy as jnp

Activation = Literal["silu", "relu"] | None


def check_activation(op: str, activation: Activation) -> None:
  """Raise ValueError unless the activation exists."""
  if activation not in ("silu", "relu", None):
    raise ValueError(
      f"{op}: activation must be 'silu', 'relu' or None, got {activation!r}"
    )


def activate(u: jax.Array, activation: Activation) -> jax.Array:
  """Apply the activation to `u` elementwise, in the dtype of `u`."""
  if activation == "silu":
    # This is u * sigmoid(u) with one transcendental and no division.
    half = 0.5 * u
    return half * jnp.tanh(half) + half
  if activation == "relu":
    return jnp.maximum(u, 0)
  return u


def derivative(u: jax.Array, activation: Activation) -> jax.Array:
  """Compute the derivative of `activate` at `u`; that of relu is 0 at 0."""
  if activation == "silu":
    sigmoid = 0.5 * jnp.tanh(0.5 * u) + 0.5
    return sigmoid * (1 + u * (1 - sigmoid))
  if activation == "relu":
    return (u > 0).astype(u.dtype)
  return jnp.ones_like(u)
