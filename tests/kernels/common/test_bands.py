import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import oracle
from support.tolerance import half_ulp

from podscale.kernels import (
  batch_norm,
  change_bands,
  channel_moments,
  from_bands,
  over_bands,
  to_bands,
)
from podscale.kernels.common.bands import halo_masks, halo_rows

F32 = jnp.float32


def image(shape, seed=0):
  values = np.random.default_rng(seed).normal(size=shape)
  return jnp.asarray(values, F32)


@pytest.mark.parametrize("bands", [1, 2, 3, 6])
def test_bands_are_parts_of_the_height(bands):
  x = image((6, 2, 3, 5))
  y = to_bands(x, bands)
  assert y.shape == (6 // bands, 2, 3, bands * 5)
  for b in range(bands):
    rows = slice(b * 6 // bands, (b + 1) * 6 // bands)
    assert (y[..., b * 5 : (b + 1) * 5] == x[rows]).all()
  assert (from_bands(y, bands) == x).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
  ("have", "want"),
  [(1, 6), (6, 1), (6, 2), (2, 6), (6, 3), (3, 6), (2, 3), (3, 2), (2, 2)],
)
def test_changed_bands_hold_the_same_image(have, want, dtype):
  x = image((6, 2, 3, 5)).astype(dtype)
  cotangent = image((6 // want, 2, 3, want * 5), seed=1).astype(dtype)
  y, vjp = jax.vjp(lambda x: change_bands(x, have, want), to_bands(x, have))
  assert y.dtype == dtype
  assert (y == to_bands(x, want)).all()
  (dx,) = vjp(cotangent)
  assert (dx == to_bands(from_bands(cotangent, want), have)).all()


def test_halo_rows_come_from_the_neighbouring_bands():
  x = image((6, 2, 3, 5))
  rows = halo_rows(to_bands(x, 2), 2, above=2, below=1)
  assert (rows["above"][..., 5:] == x[1:3]).all()
  assert (rows["below"][..., :5] == x[3:4]).all()
  # No rows are above the first band or below the last one.
  assert (rows["above"][..., :5] == 0).all()
  assert (rows["below"][..., 5:] == 0).all()
  assert halo_rows(to_bands(x, 2), 2, above=0, below=1).keys() == {"below"}
  masks = halo_masks(10, 2)
  assert masks["above"].tolist() == [0] * 5 + [1] * 5
  assert masks["below"].tolist() == [1] * 5 + [0] * 5


@pytest.mark.parametrize("given", [False, True])
def test_moments_of_bands_are_those_of_the_image(given):
  # The bands have different means, so that most of the variance is between
  # bands.
  x = image((6, 2, 3, 5)) + 10 * jnp.arange(6, dtype=F32)[:, None, None, None]
  weights = image((2, 5), seed=1)
  pivot = x[2].mean((0, 1)) if given else None

  def loss(x):
    moments = channel_moments(to_bands(x, 3), pivot=pivot, bands=3)
    return jnp.sum(weights * jnp.stack([moments.mean, moments.m2])), moments

  (_, moments), dx = jax.value_and_grad(loss, has_aux=True)(x)
  exact = oracle.moments(x)
  assert moments.count == exact["count"]
  # Values, squares and their sums have about ten roundings.
  for name, result in moments._asdict().items():
    np.testing.assert_allclose(result, exact[name], rtol=10 * half_ulp(F32))
  want = oracle.moments_gradient(x, *weights)
  assert np.abs(dx - want).max() <= 10 * half_ulp(F32) * np.abs(want).max()


def test_normalisation_of_bands_is_that_of_the_image():
  x, scale, offset = image((4, 2, 3, 5)), image(5, seed=1), image(5, seed=2)
  weights = image(x.shape, seed=3), image((3, 5), seed=4)

  def loss(x, scale, offset, bands):
    y, mean = batch_norm(
      to_bands(x, bands),
      scale,
      offset,
      activation="silu",
      pool=True,
      bands=bands,
    )
    y = from_bands(y, bands)
    return jnp.sum(weights[0] * y) + jnp.sum(weights[1] * mean), (y, mean)

  both = [
    jax.tree.leaves(
      jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(
        x, scale, offset, bands
      )
    )
    for bands in (1, 2)
  ]
  for got, want in zip(*both, strict=True):
    # The sums have up to 24 terms, in another order.
    floor = 24 * half_ulp(F32) * np.abs(want).max()
    assert np.abs(got - want).max() <= floor


def test_what_all_bands_share_is_repeated():
  x = image((3, 5))
  assert over_bands(x, 1) is x
  assert (over_bands(x, 2) == jnp.concatenate([x, x], 1)).all()


def test_bands_must_fit():
  x = jnp.zeros((4, 2, 3, 5))
  with pytest.raises(ValueError, match="4 rows of x .* cut in 3 bands"):
    to_bands(x, 3)
  for call in (
    lambda: from_bands(x, 2),
    lambda: channel_moments(x, bands=2),
    lambda: batch_norm(x, jnp.ones(2), jnp.ones(2), bands=2),
    lambda: from_bands(x, 0),
  ):
    with pytest.raises(
      ValueError, match="5 channels of x .* do not divide into"
    ):
      call()
  with pytest.raises(
    ValueError, match="bands need layout HWNC, got 2 bands in"
  ):
    channel_moments(x, layout="HWCN", bands=2)
  message = re.escape("shape (1,) for x of shape (4, 2, 3, 5) in HWNC and 5 ba")
  with pytest.raises(ValueError, match=message):
    batch_norm(x, jnp.ones(5), jnp.ones(5), bands=5)
