"""Iteration over the columns of a row, some of them at a time in registers."""

from collections.abc import Callable
from typing import Any

from jax import lax

UNROLLED = 32
"""Widest row that is unrolled whole.

The position of each column in such a row is known at trace time, and with it
the columns that lie in the padding.
"""


def column_chunks(
  width: int,
  chunk: int,
  body: Callable[[Any, int, Any], Any],
  carry: Any = None,
  *,
  looped: int | None = None,
) -> Any:
  """Call `body(first, size, carry)` for each chunk of a row's columns.

  Args:
    width: Number of columns.
    chunk: Columns of a chunk; the last chunk may have fewer.
    body: Function that returns the next carry. `first` is an int in an unrolled
      row and may be traced in a longer one.
    carry: Registers that pass from chunk to chunk.
    looped: Leading columns that a loop may cover. By default none of a row of
      up to `UNROLLED` columns, and all of a longer row.

  Returns:
    The last carry.
  """
  if looped is None:
    looped = 0 if width <= UNROLLED else width
  iterations = looped // chunk
  if iterations < 2:
    iterations = 0
  else:
    carry = lax.fori_loop(
      0, iterations, lambda i, carry: body(i * chunk, chunk, carry), carry
    )
  for first in range(iterations * chunk, width, chunk):
    carry = body(first, min(chunk, width - first), carry)
  return carry


def even_chunk(width: int, most: int) -> int:
  """Choose a chunk of at most `most` columns that splits a row evenly.

  >>> even_chunk(28, 16), even_chunk(57, 16)
  (14, 15)
  """
  chunks = -(-width // most)
  return -(-width // chunks)
