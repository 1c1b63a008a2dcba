"""Mixed images and their labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podscale.train.mixup import mixup


def test_images_are_shares_of_two():
  images = jnp.arange(6.0)[:, None, None, None] * jnp.ones((1, 2, 2, 3))
  labels = jnp.arange(6)
  mixed = mixup(images, labels, alpha=0.4, key=jax.random.key(1))
  share = np.asarray(mixed.share)
  partners = [1, 0, 3, 2, 5, 4]
  assert mixed.partners.tolist() == partners
  want = share * np.arange(6) + (1 - share) * np.array(partners)
  np.testing.assert_allclose(mixed.images[:, 1, 0, 2], want, rtol=1e-6)


def test_a_part_of_a_batch_is_mixed_as_in_the_whole():
  images = jnp.arange(8.0)[:, None, None, None]
  settings = {"alpha": 0.4, "key": jax.random.key(1)}
  whole = mixup(images, jnp.arange(8), **settings)
  part = mixup(images[4:], jnp.arange(4, 8), first_image=4, **settings)
  for got, want in zip(part, whole, strict=True):
    np.testing.assert_array_equal(got, want[4:])
  assert len(set(whole.share.tolist())) == 8


def test_an_odd_number_has_no_pairs():
  images = jnp.zeros((3, 1, 1, 3))
  with pytest.raises(ValueError, match="even number of images, got 3"):
    mixup(images, jnp.arange(3), alpha=0.2, key=jax.random.key(0))


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
    # The mean of n values deviates by sd / sqrt(n); five times that is allowed.
    assert abs(share.mean() - want.mean()) < 5 * want.std() / 20_000**0.5


def test_bfloat16_stays_bfloat16():
  images = jnp.ones((2, 1, 1, 3), jnp.bfloat16)
  mixed = mixup(images, jnp.arange(2), alpha=1.0, key=jax.random.key(0))
  assert mixed.images.dtype == jnp.bfloat16
