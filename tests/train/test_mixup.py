"""Images and losses of two examples each."""

import jax
import jax.numpy as jnp
import numpy as np

from podscale.train.mixup import mixup


def test_images_are_shares_of_two():
  images = jnp.arange(6.0)[:, None, None, None] * jnp.ones((1, 2, 2, 3))
  labels = jnp.arange(6)
  mixed = mixup(images, labels, alpha=0.4, key=jax.random.key(1))
  share = np.asarray(mixed.share)
  assert mixed.partners.tolist() == [5, 4, 3, 2, 1, 0]
  want = share * np.arange(6) + (1 - share) * np.arange(6)[::-1]
  np.testing.assert_allclose(mixed.images[:, 1, 0, 2], want, rtol=1e-6)


def test_shares_have_the_distribution_of_the_larger_part():
  labels = jnp.zeros(20_000, jnp.int32)
  images = jnp.zeros((20_000, 1, 1, 1))
  for alpha in (0.2, 1.0):
    share = np.asarray(
      mixup(images, labels, alpha=alpha, key=jax.random.key(0)).share
    )
    assert share.min() >= 0.5 and share.max() <= 1.0
    draws = np.random.default_rng(0).beta(alpha, alpha, 200_000)
    want = np.maximum(draws, 1 - draws)
    # The mean of n has deviation sd / sqrt(n): five of the smaller sample's.
    assert abs(share.mean() - want.mean()) < 5 * want.std() / 20_000**0.5


def test_bfloat16_stays_bfloat16():
  images = jnp.ones((2, 1, 1, 3), jnp.bfloat16)
  mixed = mixup(images, jnp.arange(2), alpha=1.0, key=jax.random.key(0))
  assert mixed.images.dtype == jnp.bfloat16
