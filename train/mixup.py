"""Mixup: training on mixtures of two images and their labels."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..model.regularization import image_keys


class Mixed(NamedTuple):
  """Mixed images and their labels.

  Attributes:
    images: Mixed images, `[n, h, w, c]`.
    partners: Labels of the partners, `[n]`.
    share: Share of the image itself, float32 `[n]` in [0.5, 1].
  """

  images: jax.Array
  partners: jax.Array
  share: jax.Array


def mixup(
  images: jax.Array,
  labels: jax.Array,
  *,
  alpha: float,
  key: jax.Array,
  first_image: jax.Array | int = 0,
) -> Mixed:
  """Mix each image with its neighbour: images 0 and 1, 2 and 3, ...

  An image keeps the larger of the shares s and 1 - s, with its own s drawn from
  Beta(alpha, alpha) (Zhang et al. 2018, arXiv:1710.09412; the larger share as
  in tensorflow/tpu, models/official/efficientnet/imagenet_input.py). The
  reference takes partners from the end of a device's batch. In a shuffled batch
  the neighbour is equivalent, and independent of the number of devices.

  Args:
    images: Images, float `[n, h, w, c]`.
    labels: Labels, `[n]`.
    alpha: Parameter of the beta distribution, above 0.
    key: PRNG key of the shares; each image folds in its position in the batch.
    first_image: Position of the first image in the batch, an even number.

  Raises:
    ValueError: The number of images is odd.

  >>> images = jnp.arange(2.0)[:, None, None, None]
  >>> mixed = mixup(
  ...   images, jnp.array([7, 8]), alpha=0.2, key=jax.random.key(0)
  ... )
  >>> mixed.partners.tolist(), bool((mixed.share >= 0.5).all())
  ([8, 7], True)
  """
  if len(labels) % 2:
    raise ValueError(f"mixup needs an even number of images, got {len(labels)}")
  share = jax.vmap(
    lambda own: jax.random.beta(own, alpha, alpha, (), jnp.float32)
  )(image_keys(key, first_image, len(labels)))
  share = jnp.maximum(share, 1 - share)
  part = share.astype(images.dtype)[:, None, None, None]
  mixed = part * images + (1 - part) * _partners(images)
  return Mixed(mixed, _partners(labels), share)


def _partners(x: jax.Array) -> jax.Array:
  pairs = x.reshape(-1, 2, *x.shape[1:])
  return pairs[:, ::-1].reshape(x.shape)
