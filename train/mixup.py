"""Mixup: training on images that are parts of two, and on both their labels."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


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
  images: jax.Array, labels: jax.Array, *, alpha: float, key: jax.Array
) -> Mixed:
  """Mixes each image with that at its place from the end.

  The share of the image is the larger of s and 1 - s, s from Beta(alpha,
  alpha), one for each image (Zhang et al. 2018, arXiv:1710.09412; the reversed
  partner and the larger share as in tensorflow/tpu,
  models/official/efficientnet/imagenet_input.py).

  Args:
    images: Float `[n, h, w, c]`.
    labels: `[n]`.
    alpha: Above 0.
    key: For the shares.

  >>> images = jnp.arange(2.0)[:, None, None, None]
  >>> mixed = mixup(
  ...   images, jnp.array([7, 8]), alpha=0.2, key=jax.random.key(0)
  ... )
  >>> mixed.partners.tolist(), bool((mixed.share >= 0.5).all())
  ([8, 7], True)
  """
  share = jax.random.beta(key, alpha, alpha, labels.shape, jnp.float32)
  share = jnp.maximum(share, 1 - share)
  part = share.astype(images.dtype)[:, None, None, None]
  mixed = part * images + (1 - part) * images[::-1]
  return Mixed(mixed, labels[::-1], share)
