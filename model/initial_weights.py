"""Initial weights of convolutions."""

import math

import jax
import jax.numpy as jnp


def draw_weights(
  key: jax.Array, shape: tuple[int, ...], fan_out: int
) -> jax.Array:
  """Draw weights from a normal distribution of variance 2 / fan_out.

  The distribution is not truncated, as in TensorFlow's EfficientNet.
  """
  return jax.random.normal(key, shape, jnp.float32) * math.sqrt(2 / fan_out)
