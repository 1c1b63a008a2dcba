"""What training drops at random: branches of blocks, features of the head.

The random numbers of an image depend on its place in the whole batch, not on
the device that has it: the same batch on other devices is trained alike.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx


class ImageRngs(NamedTuple):
  """Random numbers for each image of a part of a batch.

  Attributes:
    rngs: With a `dropout` stream; None where nothing is drawn.
    first: Images of the whole batch before this part.
  """

  rngs: nnx.Rngs | None
  first: jax.Array | int = 0

  def keep(
    self, probability: float, images: int, shape: tuple[int, ...]
  ) -> jax.Array:
    """True with a probability: bool `[images, *shape]`, others at each call.

    Raises:
      ValueError: There is no stream to draw from.
    """
    if self.rngs is None:
      raise ValueError(
        "training draws random numbers: call model(images, "
        "rngs=nnx.Rngs(...)), or model.eval() first"
      )
    keys = image_keys(self.rngs.dropout(), self.first, images)
    return jax.vmap(lambda own: jax.random.bernoulli(own, probability, shape))(
      keys
    )


def image_keys(
  key: jax.Array, first: jax.Array | int, images: int
) -> jax.Array:
  """A key for each image, by its place in the whole batch: `[images]`."""
  places = first + jnp.arange(images)
  return jax.vmap(lambda place: jax.random.fold_in(key, place))(places)


class StochasticDepth(nnx.Module):
  """Drops a residual branch per image in training (Huang et al. 2016)."""

  def __init__(self, survival_prob: float):
    self.survival_prob = survival_prob
    self.deterministic = False

  def __call__(self, x: jax.Array, rngs: ImageRngs) -> jax.Array:
    """The branch [h, w, n, c], or zero for the images that drop it."""
    if self.deterministic or self.survival_prob == 1:
      return x
    keep = rngs.keep(self.survival_prob, x.shape[2], (1,))
    # In bfloat16 the factor would be off by up to half a percent.
    factor = keep.astype(jnp.float32) / self.survival_prob
    return (x.astype(jnp.float32) * factor[None, None]).astype(x.dtype)


class Dropout(nnx.Module):
  """Drops features in training (Srivastava et al. 2014)."""

  def __init__(self, rate: float):
    self.rate = rate
    self.deterministic = False

  def __call__(self, x: jax.Array, rngs: ImageRngs) -> jax.Array:
    """The features [n, c], those that are kept by 1 / (1 - rate)."""
    if self.deterministic or self.rate == 0:
      return x
    keep = rngs.keep(1 - self.rate, x.shape[0], x.shape[1:])
    return jnp.where(keep, x / (1 - self.rate), 0)
