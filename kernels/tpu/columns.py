"""Walking over the columns of a row, some of them at a time in registers."""

from collections.abc import Callable, Iterator
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
) -> Any:
  """Calls `body(first, size, carry)` for each chunk of a row's columns.

  Args:
    width: Columns in all.
    chunk: Columns at a time; the last chunk may have fewer.
    body: Returns the next carry. `first` is an int in an unrolled row, else
      it may be traced.
    carry: Registers that go from chunk to chunk.

  Returns:
    The last carry.
  """
  whole, rest = divmod(width, chunk)
  if width <= UNROLLED or whole < 2:
    for first, size in _static(width, chunk):
      carry = body(first, size, carry)
    return carry
  carry = lax.fori_loop(
    0, whole, lambda i, carry: body(i * chunk, chunk, carry), carry
  )
  return body(whole * chunk, rest, carry) if rest else carry


def _static(width: int, chunk: int) -> Iterator[tuple[int, int]]:
  for first in range(0, width, chunk):
    yield first, min(chunk, width - first)


def even_chunk(width: int, most: int) -> int:
  """A chunk of at most `most` columns that cuts a row evenly.

  >>> even_chunk(28, 16), even_chunk(57, 16)
  (14, 15)
  """
  pieces = -(-width // most)
  return -(-width // pieces)
