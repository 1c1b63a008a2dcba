"""Scale and offset of batch norm, from moments."""

import jax
import jax.numpy as jnp
from jax import lax

from ..common.moments import Moments
from ..selection.selection import Selection, the_only_one


def batch_norm_affine(
  moments: Moments,
  gamma: jax.Array,
  beta: jax.Array,
  *,
  epsilon: float = 1e-3,
) -> tuple[jax.Array, jax.Array]:
  """Compute the scale and offset that batch norm applies.

  Equivalent to `scale = gamma / sqrt(m2 / count + epsilon)` and
  `offset = beta - mean * scale`, so that `x * scale + offset` is x normalised.

  Args:
    moments: Moments of x, over all images that share statistics.
    gamma: Learned scale, float32 `[c]`.
    beta: Learned offset, float32 `[c]`.
    epsilon: Number added to the variance; 1e-3 in EfficientNet.

  Returns:
    Scale and offset, float32 `[c]` each.

  Raises:
    ValueError: The shapes differ, or epsilon is negative.

  Source: Ioffe and Szegedy 2015, algorithm 1.

  >>> import jax.numpy as jnp
  >>> moments = Moments(jnp.float32(4), jnp.ones(1), jnp.full(1, 16.0))
  >>> scale, offset = batch_norm_affine(
  ...   moments, jnp.ones(1), jnp.zeros(1), epsilon=0.0)
  >>> scale.item(), offset.item()
  (0.5, -0.5)
  """
  _check(moments, gamma, beta, epsilon)
  variance = moments.m2 / moments.count
  scale = gamma * lax.rsqrt(variance + jnp.float32(epsilon))
  return scale, beta - moments.mean * scale


def describe(
  moments: Moments, gamma: jax.Array, beta: jax.Array, epsilon: float
) -> Selection:
  """Check the arguments and select the implementation."""
  _check(moments, gamma, beta, epsilon)
  return the_only_one()


def _check(moments, gamma, beta, epsilon) -> None:
  shapes = {moments.mean.shape, moments.m2.shape, gamma.shape, beta.shape}
  if len(shapes) != 1:
    raise ValueError(
      f"batch_norm_affine: mean {moments.mean.shape}, m2 {moments.m2.shape}, "
      f"gamma {gamma.shape} and beta {beta.shape} must have one shape"
    )
  if epsilon < 0:
    raise ValueError(
      f"batch_norm_affine: epsilon must not be below 0, got {epsilon}"
    )
