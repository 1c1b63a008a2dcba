"""Euclidean norms that neither overflow nor underflow, in one pass.

The square of a float32 overflows for values above 1e19 and underflows below
1e-19. So the squares are summed at three scales: of the values, of small
multiples and of large multiples. At least one of the three sums is accurate.
Blue (ACM TOMS 4(1), 1978) sorts the values into three such sums instead, which
takes 1.5 times as many operations.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

SCALES = 3


def norm(x: jax.Array) -> jax.Array:
  """Compute the Euclidean norm of an array without overflow or underflow.

  Equivalent to `jnp.linalg.norm(x.ravel())`, but accurate for every finite `x`
  whose norm the dtype can hold. Subnormal values may count as zero.

  Args:
    x: Array of any shape, in the floating-point dtype to compute in.

  Returns:
    Norm, a scalar of `x`'s dtype; 0 for an empty array.
  """
  return norm_of_sums([jnp.sum(q) for q in scaled_squares(x)])


def scaled_squares(x: jax.Array) -> list[jax.Array]:
  """Square `x`, a small multiple of it and a large one, elementwise."""
  scale = _scale(x.dtype)
  return [x * x, jnp.square(x * (1 / scale)), jnp.square(x * scale)]


def norm_of_sums(sums: jax.Array | Sequence[jax.Array]) -> jax.Array:
  """Compute norms from the sums of `scaled_squares`.

  Between the limits the first sum is accurate: nothing overflowed, and 2^30
  squares that underflowed to zero are together below its last digit. Beyond
  the limits one of the other two sums is accurate.

  Args:
    sums: Sums at the three scales, `[3, ...]` or three arrays `[...]`.

  Returns:
    Norms, `[...]` of the same dtype.
  """
  plain, small_multiples, large_multiples = sums
  scale = _scale(plain.dtype)
  least, most = _limits(plain.dtype)
  # A NaN is on neither side of the limits, so the norm is NaN.
  result = jnp.where(
    plain > most, jnp.sqrt(small_multiples) * scale, jnp.sqrt(plain)
  )
  return jnp.where(
    plain < least, jnp.sqrt(large_multiples) * (1 / scale), result
  )


def _scale(dtype: jnp.dtype) -> float:
  """Return the factor of the large multiples: 2^75 in float32."""
  return _power(75, dtype)


def _limits(dtype: jnp.dtype) -> tuple[float, float]:
  """Return the limits of the first sum: 2^-70 and 2^100 in float32."""
  return _power(-70, dtype), _power(100, dtype)


def _power(exponent: int, dtype: jnp.dtype) -> float:
  """Return 2^exponent, with the exponent scaled to the dtype's range."""
  return 2.0 ** math.floor(exponent * jnp.finfo(dtype).maxexp / 128)
