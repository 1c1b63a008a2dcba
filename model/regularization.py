"""Stochastic depth and dropout.

The random numbers of an image depend on its index in the whole batch, not on
its device, so the same batch trains alike on any number of devices.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx


class ImageRngs(NamedTuple):
  """Random numbers for each image of one device's share of a batch.

  Attributes:
    rngs: Random numbers with a `dropout` stream; None in evaluation.
    first: Index in the whole batch of the device's first image.
  """

  rngs: nnx.Rngs | None
  first: jax.Array | int = 0

  def keep(
    self, probability: float, images: int, shape: tuple[int, ...]
  ) -> jax.Array:
    """Draw True with a probability: bool `[images, *shape]`, new at each call.

    Raises:
      ValueError: `rngs` is None.
    """
    if self.rngs is None:
      raise ValueError(
        "training needs random numbers, got rngs=None; call model(images, "
        "rngs=nnx.Rngs(...)), or model.eval() first"
      )
    keys = image_keys(self.rngs.dropout(), self.first, images)
    return jax.vmap(lambda own: jax.random.bernoulli(own, probability, shape))(
      keys
    )


def image_keys(
  key: jax.Array, first: jax.Array | int, images: int
) -> jax.Array:
  """Derive a key for each image from its index in the batch: `[images]`."""
  indices = first + jnp.arange(images)
  return jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)


class StochasticDepth(nnx.Module):
  """Stochastic depth: drops a residual branch per image in training.

  Source: Huang et al. 2016, arXiv:1603.09382, section 3.
  """

  def __init__(self, survival_prob: float):
    self.survival_prob = survival_prob
    self.deterministic = False

  def __call__(self, x: jax.Array, rngs: ImageRngs) -> jax.Array:
    """Zero the branch [h, w, n, c] of dropped images, scale the others."""
    if self.deterministic or self.survival_prob == 1:
      return x
    keep = rngs.keep(self.survival_prob, x.shape[2], (1,))
    # bfloat16 would round the factor by up to half a percent.
    factor = keep.astype(jnp.float32) / self.survival_prob
    return (x.astype(jnp.float32) * factor[None, None]).astype(x.dtype)


class Dropout(nnx.Module):
  """Dropout of features in training (Srivastava et al. 2014)."""

  def __init__(self, rate: float):
    self.rate = rate
    self.deterministic = False

  def __call__(self, x: jax.Array, rngs: ImageRngs) -> jax.Array:
    """Zero dropped features of [n, c], scale the others by 1 / (1 - rate)."""
    if self.deterministic or self.rate == 0:
      return x
    keep = rngs.keep(1 - self.rate, x.shape[0], x.shape[1:])
    return jnp.where(keep, x / (1 - self.rate), 0)
