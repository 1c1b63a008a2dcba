import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from podscale.model.squeeze_excite import Dense, SqueezeExcite

HALF_ULP = 2.0**-24


def test_dense_adds_its_bias_in_float32():
  layer = Dense(jnp.array([[1.0], [2.0**-12]]))
  assert layer.bias[...].tolist() == [0]
  layer.bias[...] = jnp.array([0.5])
  y = layer(jnp.ones((1, 2), jnp.bfloat16))
  assert y.dtype == jnp.float32
  # The result would be 1.5 in bfloat16.
  assert y.tolist() == [[1.5 + 2.0**-12]]


def sigmoid(u):
  return 1 / (1 + np.exp(-u))


@pytest.mark.parametrize(
  ("options", "between", "last"),
  [
    ({}, lambda u: u * sigmoid(u), sigmoid),
    (
      {"activation": "relu", "gate": "hard_sigmoid"},
      lambda u: np.maximum(u, 0),
      lambda u: np.clip(u / 6 + 0.5, 0, 1),
    ),
  ],
  ids=["EfficientNet", "MobileNetV3"],
)
def test_gate_is_two_dense_layers_with_activations(options, between, last):
  layer = nnx.eval_shape(
    lambda: SqueezeExcite(4, 2, rngs=nnx.Rngs(0), **options)
  )
  rng = np.random.default_rng(0)
  values = {
    "reduce": (rng.normal(size=(4, 2)), rng.normal(size=2)),
    "expand": (rng.normal(size=(2, 4)), rng.normal(size=4)),
  }
  for name, (kernel, bias) in values.items():
    getattr(layer, name).kernel.set_value(jnp.asarray(np.float32(kernel)))
    getattr(layer, name).bias.set_value(jnp.asarray(np.float32(bias)))
  pooled = rng.normal(size=(3, 4))
  gate = layer(jnp.asarray(np.float32(pooled)), jnp.float32)
  hidden = between(pooled @ values["reduce"][0] + values["reduce"][1])
  want = last(hidden @ values["expand"][0] + values["expand"][1])
  # About ten roundings on values below 10, at slopes of at most 1.1.
  assert np.abs(gate - want).max() <= 100 * HALF_ULP
  half = layer(jnp.asarray(np.float32(pooled)), jnp.bfloat16)
  assert half.dtype == jnp.bfloat16


def test_an_unknown_gate_is_refused():
  with pytest.raises(ValueError, match="gate must be 'sigmoid' or 'hard_sig"):
    SqueezeExcite(4, 2, gate="tanh", rngs=nnx.Rngs(0))


def test_both_layers_start_normal_by_their_outputs():
  layer = SqueezeExcite(400, 100, rngs=nnx.Rngs(0))
  for dense, fan_out in ((layer.reduce, 100), (layer.expand, 400)):
    values, std = np.float64(dense.kernel[...]), (2 / fan_out) ** 0.5
    n = values.size
    # One in two million seeds exceeds five deviations.
    assert abs((values**2).mean() - std**2) <= 5 * std**2 * (2 / n) ** 0.5
  assert jax.tree.all(
    jax.tree.map(
      lambda x: bool((x == 0).all()),
      (layer.reduce.bias[...], layer.expand.bias[...]),
    )
  )
