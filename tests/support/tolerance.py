"""How far from exact a result may be: derived, never chosen.

A result is judged by the largest error of its elements against float64.
Allowed is

    2 * (largest error of the plain form + floor)

The plain form is the same computation as anyone would write it in JAX, in the
same dtypes, differentiated by JAX. An op of ours may round in other places, so
it gets twice that error. An op that sums in bfloat16, leaves out a term or
takes E[x^2] - E[x]^2 makes many times it.

The plain form is now and then exact by luck, most of all where an array has
one element. The floor is what no computation can be asked to beat: how far the
exact result moves when each input moves by half an ulp of its dtype, up or
down at random, and half an ulp of the result itself (the backward error of one
rounding; Higham, Accuracy and Stability of Numerical Algorithms, section 1.5).
So it grows as the square root of the length of a sum, with the size of the
terms that cancel, and is that of bfloat16 only where bfloat16 comes in.

What it leaves out is that partial sums are rounded too, which in a long sum
one term after the other weighs more than all else. Compare sums of up to a
thousand terms with it; tests/kernels/common/test_channel_sums.py has the long
ones.

The plain form must itself be within a few floors: one that is wrong would
allow anything.
"""

import jax.numpy as jnp
import numpy as np

_DRAWS = 4  # of the signs; one alone may happen to cancel
# A value goes through ten roundings or so, which at random add up to three
# times one; the largest of many errors is three times the typical one.
_PLAIN_LIMIT = 10


def assert_accurate(actual, plain, oracle, *inputs):
  """Judges the arrays of a dict by what `oracle` makes of the inputs.

  Args:
    actual: name -> array, what is tested; its names are those compared.
    plain: name -> array, the plain form's.
    oracle: from `inputs` to a dict of float64 arrays.
    *inputs: what both forms were given: arrays in the dtypes given, or None.
  """
  exact = oracle(*inputs)
  rng = np.random.default_rng(0)
  moved = [oracle(*[_moved(rng, x) for x in inputs]) for _ in range(_DRAWS)]
  for name, array in actual.items():
    want = exact[name]
    assert array.shape == want.shape, name
    floor = max(_error(m[name], want) for m in moved)
    floor += half_ulp(array.dtype) * np.abs(want).max()
    of_plain = _error(plain[name], want)
    error, allowed = _error(array, want), 2 * (of_plain + floor)
    numbers = f"{name}: plain form {of_plain:.3g}, floor {floor:.3g}"
    assert of_plain <= _PLAIN_LIMIT * floor, f"{numbers}: not a measure"
    assert error <= allowed, f"{numbers}: {error:.3g} is above {allowed:.3g}"


def half_ulp(dtype):
  """Half the distance from 1 to the next number."""
  return float(jnp.finfo(dtype).eps) / 2


def _error(array, want):
  return np.abs(np.asarray(array, np.float64) - want).max()


def _moved(rng, array):
  if array is None:
    return None
  signs = rng.choice([-1, 1], np.shape(array))
  return np.float64(array) * (1 + half_ulp(array.dtype) * signs)
