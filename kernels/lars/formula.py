"""Arithmetic of LARS, the same for a tensor, a buffer and a register."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

Variant = Literal["tensorflow", "optax", "scaled"]
Scalar = float | jax.Array


class Settings(NamedTuple):
  """Arguments of `lars_update` apart from the trees."""

  learning_rate: Scalar
  weight_decay: Scalar
  trust_coefficient: Scalar
  momentum: Scalar
  epsilon: Scalar
  nesterov: bool
  variant: Variant

  def astype(self, dtype: jnp.dtype) -> "Settings":
    """Convert the scalars to arrays of this dtype."""
    scalars: dict[str, Any] = {
      name: jnp.asarray(x, dtype) for name, x in self.scalars.items()
    }
    return self._replace(**scalars)

  @property
  def scalars(self) -> dict[str, Any]:
    """Scalar settings by name."""
    return {
      "learning_rate": self.learning_rate,
      "weight_decay": self.weight_decay,
      "trust_coefficient": self.trust_coefficient,
      "momentum": self.momentum,
      "epsilon": self.epsilon,
    }

  @property
  def norms_decayed_gradient(self) -> bool:
    """True if the gradient's norm is taken after adding weight decay."""
    return self.variant == "optax"


def adapted_rate(
  weight_norm: jax.Array, gradient_norm: jax.Array, settings: Settings
) -> jax.Array:
  """Multiply the learning rate by the trust ratio of each leaf.

  Args:
    weight_norm: Norms of the weights, any shape.
    gradient_norm: Norms of the gradients, with weight decay added before if
      `settings.norms_decayed_gradient`; same shape.
    settings: Settings with the scalars as arrays.
  """
  both = (weight_norm > 0) & (gradient_norm > 0)
  denominator = gradient_norm + settings.epsilon
  if not settings.norms_decayed_gradient:
    denominator += settings.weight_decay * weight_norm
  # If a norm is 0 the denominator may be 0 too.
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
  """Compute the change to subtract from the weights, and the new momentum.

  Args:
    w: Weights.
    g: Gradient of the weights.
    v: Momentum buffer.
    rate: Learning rate of the leaf, with its trust ratio.
    decay: Weight decay of the leaf.
    settings: Momentum coefficient and variant.
  """
  momentum, scaled = settings.momentum, settings.variant == "scaled"
  g = g + decay * w
  if not scaled:
    g = rate * g
  v = momentum * v + g
  change = momentum * v + g if settings.nesterov else v
  return (rate * change if scaled else change), v
