"""Activations in float32, and their derivatives, against float64."""

import jax.numpy as jnp
import numpy as np
import pytest
from support import oracle
from support.plain_activation import activate as jax_activate

from podscale.kernels.common.activation import (
  ACTIVATIONS,
  activate,
  check_activation,
  derivative,
)

VALUES = np.float32([-1e4, -88, -12, -6, -3.01, -2.99, -1, -1e-3, -1e-20, 0])
VALUES = np.concatenate([VALUES, -VALUES, np.linspace(-8, 8, 999)])
VALUES = np.setdiff1d(VALUES.astype(np.float32), [0, 6, -3, 3])


# Some ten roundings of values that are below |x| + 2.
ERROR = 10 * 2**-24 * (np.abs(VALUES) + 2)


def assert_within(actual, want, error):
  assert np.all(np.abs(np.float64(actual) - np.float64(want)) <= error)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_values_and_derivatives(activation):
  x = jnp.asarray(VALUES)
  with np.errstate(over="ignore"):
    exact = oracle._activate(np.float64(VALUES), activation)
    slope = oracle._slope(np.float64(VALUES), activation)
  assert_within(activate(x, activation), exact, ERROR)
  assert_within(derivative(x, activation), slope, ERROR)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_values_are_those_of_jax(activation):
  x = jnp.asarray(VALUES)
  # Both have the error above.
  assert_within(activate(x, activation), jax_activate(x, activation), 2 * ERROR)


@pytest.mark.parametrize(
  ("activation", "slopes"),
  [
    ("relu", {0: 0}),
    ("relu6", {0: 0, 6: 0}),
    ("hard_swish", {-3: 0, 3: 1}),
    ("silu", {0: 0.5}),
    ("gelu", {0: 0.5}),
    ("gelu_tanh", {0: 0.5}),
  ],
)
def test_derivatives_where_they_may_jump(activation, slopes):
  for value, slope in slopes.items():
    assert derivative(jnp.float32(value), activation) == slope


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_dtype_stays_and_zero_is_zero(activation, dtype):
  x = jnp.zeros(3, dtype)
  assert activate(x, activation).dtype == x.dtype
  assert derivative(x, activation).dtype == x.dtype
  assert not np.any(activate(x, activation))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nans_stay(activation):
  assert jnp.isnan(activate(jnp.float32(jnp.nan), activation))


def test_names_are_listed():
  with pytest.raises(ValueError, match="'gelu_tanh' or None, got 'swish'"):
    check_activation("op", "swish")
