"""The arithmetic of LARS, the same for a tensor, a buffer and a register."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

Variant = Literal["tensorflow", "optax", "scaled"]
Scalar = float | jax.Array


class Settings(NamedTuple):
  """What `lars_update` was given, but for the trees."""

  learning_rate: Scalar
  weight_decay: Scalar
  trust_coefficient: Scalar
  momentum: Scalar
  epsilon: Scalar
  nesterov: bool
  variant: Variant

  def astype(self, dtype: jnp.dtype) -> "Settings":
    """With the scalars as arrays of this dtype."""
    scalars: dict[str, Any] = {
      name: jnp.asarray(x, dtype) for name, x in self.scalars.items()
    }
    return self._replace(**scalars)

  @property
  def scalars(self) -> dict[str, Any]:
    """By name."""
    return {
      "learning_rate": self.learning_rate,
      "weight_decay": self.weight_decay,
      "trust_coefficient": self.trust_coefficient,
      "momentum": self.momentum,
      "epsilon": self.epsilon,
    }

  @property
  def norms_decayed_gradient(self) -> bool:
    """Whether the second norm is that of the gradient with the decay."""
    return self.variant == "optax"


def adapted_rate(
  weight_norm: jax.Array, gradient_norm: jax.Array, settings: Settings
) -> jax.Array:
  """The learning rate times the trust ratio, of leaves that are adapted.

  Args:
    weight_norm: any shape.
    gradient_norm: of the same shape; see `norms_decayed_gradient`.
    settings: as arrays.
  """
  both = (weight_norm > 0) & (gradient_norm > 0)
  denominator = gradient_norm + settings.epsilon
  if not settings.norms_decayed_gradient:
    denominator += settings.weight_decay * weight_norm
  # Where a norm is 0 the denominator may be 0 too.
  ratio = weight_norm / jnp.where(both, denominator, 1)
  trust = jnp.where(both, settings.trust_coefficient * ratio, 1)
  return settings.learning_rate * trust


def step(
  w: Any,
  g: Any,
  v: Any,
  rate: Any,
  decay: Any,
  settings: Settings,
) -> tuple[Any, Any]:
  """What to subtract from the weights, and the new momentum.

  Args:
    w: weights.
    g: their gradient.
    v: their momentum.
    rate: of the leaf.
    decay: of the leaf.
    settings: for the momentum, a value of the others' kind, and the form.
  """
  momentum, scaled = settings.momentum, settings.variant == "scaled"
  g = g + decay * w
  if not scaled:
    g = rate * g
  v = momentum * v + g
  change = momentum * v + g if settings.nesterov else v
  return (rate * change if scaled else change), v
