"""Activations that ops apply to their inputs, and their derivatives."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Activation = (
  Literal["silu", "relu", "relu6", "hard_swish", "gelu", "gelu_tanh"] | None
)
"""Activations by the names of `jax.nn`.

'gelu' is the exact one, by the error function; 'gelu_tanh' is its
approximation, which `jax.nn.gelu` computes by default.
"""


class _Function(NamedTuple):
  value: Callable[[jax.Array], jax.Array]
  derivative: Callable[[jax.Array], jax.Array]
  transcendental: bool = False


def _silu(u: jax.Array) -> jax.Array:
  # This is u * sigmoid(u) with one transcendental and no division.
  half = 0.5 * u
  return half * jnp.tanh(half) + half


def _silu_derivative(u: jax.Array) -> jax.Array:
  sigmoid = 0.5 * jnp.tanh(0.5 * u) + 0.5
  return sigmoid * (1 + u * (1 - sigmoid))


def _ones_where(condition: jax.Array, like: jax.Array) -> jax.Array:
  return jnp.where(condition, jnp.ones_like(like), jnp.zeros_like(like))


def _gate(u: jax.Array) -> jax.Array:
  """Compute hard_swish(u) / u."""
  return jnp.clip(u * (1 / 6) + 0.5, 0, 1)


def _hard_swish_derivative(u: jax.Array) -> jax.Array:
  return _gate(u) + u * (1 / 6) * _ones_where((u > -3) & (u < 3), u)


def _normal_cdf(u: jax.Array) -> jax.Array:
  return 0.5 * lax.erf(u * math.sqrt(0.5)) + 0.5


def _gelu_derivative(u: jax.Array) -> jax.Array:
  density = math.sqrt(0.5 / math.pi) * jnp.exp(-0.5 * u * u)
  return _normal_cdf(u) + u * density


_CUBIC = 0.044715
_SLOPE = math.sqrt(2 / math.pi)


def _gelu_tanh_gate(u: jax.Array) -> jax.Array:
  """Compute gelu_tanh(u) / u."""
  return 0.5 * jnp.tanh(_SLOPE * u * (1 + _CUBIC * u * u)) + 0.5


def _gelu_tanh_derivative(u: jax.Array) -> jax.Array:
  inner = 2 * _SLOPE * u * (1 + _CUBIC * u * u)
  slope = 2 * _SLOPE * (1 + 3 * _CUBIC * u * u)
  # The gate is a sigmoid, whose derivative would cancel if it came from tanh.
  small = jnp.exp(-jnp.abs(inner))
  large = 1 / (1 + small)
  gate = jnp.where(u > 0, large, small * large)
  return gate + u * slope * small * large * large


_FUNCTIONS: dict[str | None, _Function] = {
  None: _Function(lambda u: u, jnp.ones_like),
  "silu": _Function(_silu, _silu_derivative, True),
  "relu": _Function(
    lambda u: jnp.maximum(u, 0), lambda u: _ones_where(u > 0, u)
  ),
  "relu6": _Function(
    lambda u: jnp.clip(u, 0, 6), lambda u: _ones_where((u > 0) & (u < 6), u)
  ),
  "hard_swish": _Function(lambda u: u * _gate(u), _hard_swish_derivative),
  "gelu": _Function(lambda u: u * _normal_cdf(u), _gelu_derivative, True),
  "gelu_tanh": _Function(
    lambda u: u * _gelu_tanh_gate(u), _gelu_tanh_derivative, True
  ),
}
ACTIVATIONS = tuple(_FUNCTIONS)


def check_activation(op: str, activation: Activation) -> None:
  """Raise ValueError unless the activation exists."""
  if activation not in _FUNCTIONS:
    *names, last = (repr(name) for name in ACTIVATIONS[1:])
    raise ValueError(
      f"{op}: activation must be {', '.join(names)}, {last} or None, got "
      f"{activation!r}"
    )


def activate(u: jax.Array, activation: Activation) -> jax.Array:
  """Apply the activation to `u` elementwise, in the dtype of `u`."""
  return _FUNCTIONS[activation].value(u)


def derivative(u: jax.Array, activation: Activation) -> jax.Array:
  """Compute the derivative of `activate` at `u`.

  The derivative of relu and relu6 is 0 where it jumps, that of hard_swish is 0
  at -3 and 1 at 3.
  """
  return _FUNCTIONS[activation].derivative(u)


def transcendentals(activation: Activation) -> int:
  """Count the transcendental functions in an activation of one value."""
  return int(_FUNCTIONS[activation].transcendental)
