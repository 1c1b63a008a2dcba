"""Derived tolerances: the largest error that a test accepts.

The error of a result is the largest error of its elements against float64. A
test accepts

    2 * (largest error of the plain implementation + floor)

The plain implementation is the same computation in ordinary JAX, in the same
dtypes, differentiated by JAX. An op of podscale may round in other places, so
it gets twice that error. An op that sums in bfloat16, omits a term or computes
E[x^2] - E[x]^2 has many times that error.

The plain implementation is sometimes exact by luck, most often when an array
has one element. The floor is the error that every computation has: the change
of the exact result when each input moves by half an ulp of its dtype, up or
down at random, plus half an ulp of the result itself (the backward error of one
rounding; Higham, Accuracy and Stability of Numerical Algorithms, section 1.5).
The floor grows with the square root of the length of a sum and with the size of
terms that cancel, and has the size of bfloat16 rounding only for bfloat16.

The floor ignores the rounding of partial sums, which dominates in a long
sequential sum. Use it for sums of up to a thousand terms;
tests/kernels/common/test_channel_sums.py covers longer ones.

The plain implementation must itself be within a few floors, because a wrong one
would accept any result.
"""

import jax.numpy as jnp
import numpy as np

# Draws of the signs; the errors of a single draw may cancel.
_DRAWS = 4
# A value passes about ten roundings, which at random add up to three times one
# rounding; the largest of many errors is three times the typical error.
_PLAIN_LIMIT = 10


def assert_accurate(actual, plain, oracle, *inputs):
  """Compare results with the oracle's, within the derived tolerance.

  Args:
    actual: Results under test by name; only these names are compared.
    plain: Results of the plain implementation by name.
    oracle: Function from `inputs` to a dict of float64 arrays.
    *inputs: Inputs of both implementations: arrays, or None.
  """
  exact = oracle(*inputs)
  rng = np.random.default_rng(0)
  moved = [oracle(*[_moved(rng, x) for x in inputs]) for _ in range(_DRAWS)]
  for name, array in actual.items():
    want = exact[name]
    assert array.shape == want.shape, name
    floor = max(_error(m[name], want) for m in moved)
    floor += half_ulp(array.dtype) * np.abs(want).max()
    plain_error = _error(plain[name], want)
    error, allowed = _error(array, want), 2 * (plain_error + floor)
    numbers = f"{name}: plain error {plain_error:.3g}, floor {floor:.3g}"
    assert plain_error <= _PLAIN_LIMIT * floor, f"{numbers}: plain is wrong"
    assert error <= allowed, f"{numbers}: {error:.3g} is above {allowed:.3g}"


def half_ulp(dtype):
  """Return half the distance from 1 to the next number."""
  return float(jnp.finfo(dtype).eps) / 2


def _error(array, want):
  return np.abs(np.asarray(array, np.float64) - want).max()


def _moved(rng, array):
  if array is None:
    return None
  signs = rng.choice([-1, 1], np.shape(array))
  return np.float64(array) * (1 + half_ulp(array.dtype) * signs)
