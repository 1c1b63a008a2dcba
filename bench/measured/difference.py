"""Difference between the results of two implementations."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def relative_difference(a: Any, b: Any) -> float:
  """Compare two trees by their largest difference over the largest value.

  Args:
    a: Tree of arrays; each leaf's largest value is the denominator.
    b: Tree of the same structure.

  Returns:
    The maximum over the leaves; NaN if any leaf has one.

  >>> relative_difference([jnp.array([2.0, 4.0])], [jnp.array([2.0, 3.0])])
  0.25
  """
  # NumPy's maximum is NaN if any element is, Python's is not.
  return float(np.max(jax.tree.leaves(jax.tree.map(_difference, a, b))))


def _difference(a: jax.Array, b: jax.Array) -> float:
  a, b = a.astype(jnp.float32), b.astype(jnp.float32)
  largest = float(jnp.max(jnp.abs(a)))
  return float(jnp.max(jnp.abs(a - b))) / largest if largest else 0.0
