import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from podscale.model.layers import (
  Dense,
  Depthwise,
  Pointwise,
  SqueezeExcite,
  Stem,
  conv_init,
)

HALF_ULP = 2.0**-24


@pytest.mark.parametrize(("size", "taps"), [(6, [5, 5, 3]), (5, [4, 5, 3])])
def test_stem_pads_as_tensorflow(size, taps):
  # Over ones the taps add up, except those outside the image: with an even
  # size only the last tap of the last output is outside.
  stem = nnx.eval_shape(lambda: Stem(1, 1, 2, rngs=nnx.Rngs(0)))
  row = jnp.zeros((3, 3, 1, 1)).at[1, :, 0, 0].set(jnp.array([1.0, 2, 2]))
  stem.kernel.set_value(row)
  y, moments = stem(jnp.ones((1, size, size, 1)))
  assert y.shape == (3, 3, 1, 1)  # [h, w, n, c]
  assert y[0, :, 0, 0].tolist() == taps
  assert moments.count == 9
  assert moments.mean[0] == np.float32(sum(taps) / 3)


def test_pointwise_is_a_matrix_product_with_moments():
  layer = nnx.eval_shape(lambda: Pointwise(3, 2, rngs=nnx.Rngs(0)))
  layer.kernel.set_value(jnp.array([[1.0, 2], [3, 4], [5, 6]]))
  x = jnp.arange(12.0).reshape(2, 1, 2, 3)
  y, moments = layer(x)
  want = np.asarray(x) @ np.float32([[1, 2], [3, 4], [5, 6]])
  assert (y == want).all()
  # Small integers over 4: exact.
  assert moments.mean.tolist() == want.reshape(4, 2).mean(0).tolist()


def test_depthwise_applies_the_pending_norm_and_swish():
  layer = nnx.eval_shape(lambda: Depthwise(2, 3, 1, rngs=nnx.Rngs(0)))
  layer.filters.set_value(jnp.zeros((3, 3, 2)).at[1, 1].set(1))
  x = jnp.ones((2, 2, 1, 2))
  assert (layer(x, None)[0] == x).all()
  y, _ = layer(x, (jnp.array([2.0, 0.0]), jnp.array([1.0, -1.0])))
  swish = np.array([3, -1]) / (1 + np.exp([-3.0, 1]))
  np.testing.assert_allclose(y[0, 0, 0], swish, rtol=8 * HALF_ULP)


def test_dense_adds_its_bias_in_float32():
  layer = Dense(jnp.array([[1.0], [2.0**-12]]))
  assert layer.bias[...].tolist() == [0]
  layer.bias[...] = jnp.array([0.5])
  y = layer(jnp.ones((1, 2), jnp.bfloat16))
  assert y.dtype == jnp.float32
  # The result would be 1.5 in bfloat16.
  assert y.tolist() == [[1.5 + 2.0**-12]]


def test_squeeze_excite_is_swish_then_sigmoid():
  layer = nnx.eval_shape(lambda: SqueezeExcite(4, 2, rngs=nnx.Rngs(0)))
  rng = np.random.default_rng(0)
  values = {
    "reduce": (rng.normal(size=(4, 2)), rng.normal(size=2)),
    "expand": (rng.normal(size=(2, 4)), rng.normal(size=4)),
  }
  for name, (kernel, bias) in values.items():
    getattr(layer, name).kernel.set_value(jnp.asarray(np.float32(kernel)))
    getattr(layer, name).bias.set_value(jnp.asarray(np.float32(bias)))
  pooled = rng.normal(size=(3, 4))
  gate = layer(jnp.asarray(np.float32(pooled)), jnp.dtype(jnp.float32))
  hidden = pooled @ values["reduce"][0] + values["reduce"][1]
  hidden = hidden / (1 + np.exp(-hidden))
  want = hidden @ values["expand"][0] + values["expand"][1]
  want = 1 / (1 + np.exp(-want))
  # About ten roundings on values below 10, at slopes of at most 1.1.
  assert np.abs(gate - want).max() <= 100 * HALF_ULP
  half = layer(jnp.asarray(np.float32(pooled)), jnp.dtype(jnp.bfloat16))
  assert half.dtype == jnp.bfloat16


def test_conv_init_is_normal_and_not_truncated():
  values = np.asarray(conv_init(jax.random.key(0), (100, 1000), fan_out=50))
  assert values.dtype == np.float32
  n, std = values.size, 0.2
  # Mean and mean square of n normal numbers deviate by std / sqrt(n) and
  # std**2 * sqrt(2 / n); one in two million seeds exceeds five deviations.
  values = np.float64(values)
  assert abs(values.mean()) <= 5 * std / math.sqrt(n)
  assert abs((values**2).mean() - std**2) <= 5 * std**2 * math.sqrt(2 / n)
  # 6 in 100,000 lie beyond four deviations, none of a truncated normal.
  assert np.abs(values).max() > 4 * std
