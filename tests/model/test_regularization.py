import math

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from podscale.model.regularization import Dropout, ImageRngs, StochasticDepth

HALF_ULP = 2.0**-24


def dropped(layer, shape, dtype=jnp.float32, seed=0):
  """Return the layer's factor for each image, from a branch of ones."""
  rngs = ImageRngs(nnx.Rngs(dropout=seed))
  return np.asarray(layer(jnp.ones(shape, dtype), rngs).astype(jnp.float32))


def test_stochastic_depth_drops_images_and_divides_by_survival():
  factors = dropped(StochasticDepth(0.8), (2, 3, 500, 4))
  of_image = factors[0, 0, :, 0]
  # An image is kept or dropped as a whole.
  assert (factors == of_image[None, None, :, None]).all()
  assert set(of_image) == {0, np.float32(1 / 0.8)}
  # Another key drops other images.
  assert (
    dropped(StochasticDepth(0.8), (2, 3, 500, 4), seed=1) != factors
  ).any()


@pytest.mark.parametrize("survival", [0.8125, 0.5])
def test_stochastic_depth_keeps_the_expectation(survival):
  images = 100_000
  factors = dropped(StochasticDepth(survival), (1, 1, images, 1))
  # kept / survival has variance (1 - survival) / survival; one in two million
  # seeds exceeds five deviations of the mean.
  deviation = math.sqrt((1 - survival) / survival / images)
  assert abs(factors.mean(dtype=np.float64) - 1) <= 5 * deviation


def test_stochastic_depth_in_bfloat16_rounds_once():
  # 39 blocks is B5. The factor itself in bfloat16 would scale a whole branch
  # by up to half a percent too much or too little.
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 64, 8)))
  x = x.astype(jnp.bfloat16)
  for i in range(1, 39):
    survival = 1 - 0.2 * i / 39
    layer = StochasticDepth(survival)
    y = np.float64(layer(x, ImageRngs(nnx.Rngs(dropout=0))))
    kept = dropped(layer, (1, 1, 64, 1))[0, 0] > 0
    assert 32 < kept.sum() <= 64
    want = np.float64(x) * kept / survival
    # Half an ulp of bfloat16, and a few roundings of float32.
    assert (np.abs(y - want) <= (2.0**-8 + 4 * HALF_ULP) * np.abs(want)).all()


def test_stochastic_depth_does_nothing_in_evaluation():
  layer = StochasticDepth(0.5)
  layer.eval()
  x = jnp.ones((1, 1, 8, 2))
  assert layer(x, ImageRngs(None)) is x


def test_a_block_that_always_survives_needs_no_random_numbers():
  x = jnp.ones((1, 1, 8, 2))
  assert StochasticDepth(1.0)(x, ImageRngs(None)) is x


def test_training_without_random_numbers_says_so():
  message = r"model\(images, rngs=nnx.Rngs\(...\)\), or model.eval\(\)"
  with pytest.raises(ValueError, match=message):
    StochasticDepth(0.5)(jnp.ones((1, 1, 8, 2)), ImageRngs(None))


@pytest.mark.parametrize(
  ("layer", "shape", "axis"),
  [(StochasticDepth(0.5), (2, 3, 32, 4), 2), (Dropout(0.5), (32, 7), 0)],
)
def test_what_is_dropped_depends_on_the_place_in_the_whole_batch(
  layer, shape, axis
):
  x = jnp.ones(shape)
  whole = layer(x, ImageRngs(nnx.Rngs(dropout=3)))
  parts = [
    layer(part, ImageRngs(nnx.Rngs(dropout=3), jnp.int32(8 * i)))
    for i, part in enumerate(jnp.split(x, 4, axis))
  ]
  np.testing.assert_array_equal(jnp.concatenate(parts, axis), whole)
  images = np.moveaxis(np.asarray(whole), axis, 0).reshape(32, -1)
  assert len(np.unique(images, axis=0)) > 1


def test_dropout_keeps_the_expectation():
  rate, n = 0.3, 100_000
  rngs = ImageRngs(nnx.Rngs(dropout=0))
  y = np.asarray(Dropout(rate)(jnp.ones((n // 100, 100)), rngs))
  assert set(np.unique(y)) == {0, np.float32(1 / (1 - rate))}
  # Its variance is rate / (1 - rate); five deviations of the mean.
  assert abs(y.mean() - 1) < 5 * math.sqrt(rate / (1 - rate) / n)


def test_dropout_does_nothing_in_evaluation_or_at_rate_0():
  x, layer = jnp.ones((2, 3)), Dropout(0.5)
  layer.eval()
  assert layer(x, ImageRngs(None)) is x
  assert Dropout(0.0)(x, ImageRngs(None)) is x
