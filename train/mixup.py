"""Mixup: training on images that are parts of two, and on both their labels."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..model.regularization import image_keys


class Mixed(NamedTuple):
  """Images of two each.

  Attributes:
    images: `[n, h, w, c]`.
    partners: Labels `[n]` of what was mixed in.
    share: Of the image itself, float32 `[n]`, in [0.5, 1].
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
  """Mixes the images of each pair, that of an even place and the one behind it.

  The share of the image is the larger of s and 1 - s, s from Beta(alpha,
  alpha), one for each image (Zhang et al. 2018, arXiv:1710.09412; the larger
  share as in tensorflow/tpu,
  models/official/efficientnet/imagenet_input.py). There the partner is that
  from the end of a device's batch; in a shuffled batch a neighbour is as good,
  and the same whatever the devices.

  Args:
    images: Float `[n, h, w, c]`.
    labels: `[n]`.
    alpha: Above 0.
    key: For the shares, with an image's place in the whole batch.
    first_image: Images of the whole batch before these, an even number.

  Raises:
    ValueError: n is odd.

  >>> images = jnp.arange(2.0)[:, None, None, None]
  >>> mixed = mixup(
  ...   images, jnp.array([7, 8]), alpha=0.2, key=jax.random.key(0)
  ... )
  >>> mixed.partners.tolist(), bool((mixed.share >= 0.5).all())
  ([8, 7], True)
  """
  if len(labels) % 2:
    raise ValueError(f"mixup takes images in pairs, got {len(labels)}")
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
