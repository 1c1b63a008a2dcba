"""Norms that neither overflow nor underflow, in one pass.

The square of a float32 leaves its range outside about 1e-19 to 1e19. So the
squares are summed three times, of the values as they are, of small multiples
and of large ones, without looking at any; one of the sums can be used. Blue
(ACM TOMS 4(1), 1978) sorts the values into three such sums instead, which takes
half as many operations again.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

SCALES = 3


def norm(x: jax.Array) -> jax.Array:
  """The Euclidean norm of a whole tensor, without overflow or underflow.

  Equivalent to `jnp.linalg.norm(x.ravel())`, but right for every finite `x`
  whose norm the dtype can hold. Subnormal values may count as zero.

  Args:
    x: floating-point, any shape; in the dtype to compute in.

  Returns:
    A scalar of `x`'s dtype; 0 for an empty tensor.
  """
  return norm_of_sums([jnp.sum(q) for q in scaled_squares(x)])


def scaled_squares(x: jax.Array) -> list[jax.Array]:
  """The squares of `x`, of a small and of a large multiple, of `x`'s shape."""
  scale = _scale(x.dtype)
  return [x * x, jnp.square(x * (1 / scale)), jnp.square(x * scale)]


def norm_of_sums(sums: jax.Array | Sequence[jax.Array]) -> jax.Array:
  """The norm, from the sums over all values of `scaled_squares`.

  Between the limits the first sum has lost no digit: neither to overflow, nor
  by squares that count as zero, which are below its last digit even if there
  are 2^30 of them. Beyond the limits another has not.

  Args:
    sums: `[3, ...]`, or three of `[...]`.

  Returns:
    `[...]`, of the same dtype.
  """
  plain, small_multiples, large_multiples = sums
  scale = _scale(plain.dtype)
  least, most = _limits(plain.dtype)
  # NaN is on neither side, and stays.
  result = jnp.where(
    plain > most, jnp.sqrt(small_multiples) * scale, jnp.sqrt(plain)
  )
  return jnp.where(
    plain < least, jnp.sqrt(large_multiples) * (1 / scale), result
  )


def _scale(dtype: jnp.dtype) -> float:
  """2^75 in float32."""
  return _power(75, dtype)


def _limits(dtype: jnp.dtype) -> tuple[float, float]:
  """2^-70 and 2^100 in float32."""
  return _power(-70, dtype), _power(100, dtype)


def _power(exponent: int, dtype: jnp.dtype) -> float:
  """2 to the exponent that another dtype has in float32's place."""
  return 2.0 ** math.floor(exponent * jnp.finfo(dtype).maxexp / 128)
