"""Difference between results."""

import jax.numpy as jnp
import numpy as np
import pytest

from podscale.bench.measured.difference import relative_difference


def test_the_worst_leaf_counts_by_its_own_largest_value():
  a = {"small": jnp.array([1e-3, 2e-3]), "large": jnp.array([100.0, 50.0])}
  b = {"small": jnp.array([1e-3, 1e-3]), "large": jnp.array([99.0, 50.0])}
  assert relative_difference(a, b) == pytest.approx(0.5)


def test_zeros_are_not_divided_by():
  assert relative_difference(jnp.zeros(3), jnp.zeros(3)) == 0


@pytest.mark.parametrize("order", [1, -1])
def test_nan_is_never_hidden(order):
  a = [jnp.array([1.0, np.nan]), jnp.ones(2)][::order]
  assert np.isnan(relative_difference(a, [jnp.ones(2), jnp.ones(2)]))
