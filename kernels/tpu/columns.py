"""Walking over the columns of a row, some of them at a time in registers."""

from collections.abc import Callable
from typing import Any

from jax import lax

# Rows up to this wide are unrolled whole, so that each column's place, and
# with it what lies in the padding, is known when the kernel is traced.
UNROLLED = 32


def column_chunks(
  width: int,
  chunk: int,
  body: Callable[[Any, int, Any], Any],
  carry: Any = None,
  *,
  looped: int | None = None,
) -> Any:
  """Calls `body(first, size, carry)` for each chunk of a row's columns.

  Args:
    width: Columns in all.
    chunk: Columns at a time; the last chunk may have fewer.
    body: Returns the next carry. `first` is an int in an unrolled row, else
      it may be traced.
    carry: Registers that go from chunk to chunk.
    looped: Columns, from the first, that a loop may go over; by default none
      of a row of up to `UNROLLED` columns, all of a longer one.

  Returns:
    The last carry.
  """
  if looped is None:
    looped = 0 if width <= UNROLLED else width
  turns = looped // chunk
  if turns < 2:
    turns = 0
  else:
    carry = lax.fori_loop(
      0, turns, lambda i, carry: body(i * chunk, chunk, carry), carry
    )
  for first in range(turns * chunk, width, chunk):
    carry = body(first, min(chunk, width - first), carry)
  return carry


def even_chunk(width: int, most: int) -> int:
  """A chunk of at most `most` columns that cuts a row evenly.

  >>> even_chunk(28, 16), even_chunk(57, 16)
  (14, 15)
  """
  pieces = -(-width // most)
  return -(-width // pieces)
