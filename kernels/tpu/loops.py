"""Loops of a kernel, with several turns to a body.

The compiler schedules one body at a time, and a short one leaves slots empty
at its start and end.
"""

from collections.abc import Callable
from typing import Any

from jax import lax


def loop(
  start: Any,
  stop: Any,
  body: Callable[[Any, Any], Any],
  carry: Any = None,
  turns: int = 1,
) -> Any:
  """`for i in range(start, stop): carry = body(i, carry)`.

  Args:
    start: First value; a traced one, too, as `stop`.
    stop: One after the last.
    body: From a value and the carry to the next carry.
    carry: What goes from turn to turn.
    turns: Turns that are scheduled together.

  Returns:
    The last carry.
  """
  static = isinstance(start, int) and isinstance(stop, int)
  if static and stop - start <= turns:
    for i in range(start, stop):
      carry = body(i, carry)
    return carry

  def several(j, carry):
    for turn in range(turns):
      carry = body(start + j * turns + turn, carry)
    return carry

  # `//` of a traced value would ask which chip this is.
  count = stop - start
  full = count // turns if static else lax.div(count, turns)
  carry = lax.fori_loop(0, full, several, carry)
  if turns == 1:
    return carry
  return loop(start + full * turns, stop, body, carry)
