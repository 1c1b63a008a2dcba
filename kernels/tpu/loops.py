"""Loops of a kernel with several iterations in one body.

The compiler schedules one loop body at a time. A short body leaves slots empty
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
  unroll: int = 1,
) -> Any:
  """Run `for i in range(start, stop): carry = body(i, carry)`.

  Args:
    start: First index, an int or traced.
    stop: Index after the last, an int or traced.
    body: Function from an index and the carry to the next carry.
    carry: Values that pass from iteration to iteration.
    unroll: Iterations that the compiler schedules together.

  Returns:
    The last carry.
  """
  static = isinstance(start, int) and isinstance(stop, int)
  if static and stop - start <= unroll:
    for i in range(start, stop):
      carry = body(i, carry)
    return carry

  def unrolled(j, carry):
    for k in range(unroll):
      carry = body(start + j * unroll + k, carry)
    return carry

  count = stop - start
  # lax.div, because `//` on a tracer queries the device.
  full = count // unroll if static else lax.div(count, unroll)
  carry = lax.fori_loop(0, full, unrolled, carry)
  if unroll == 1:
    return carry
  return loop(start + full * unroll, stop, body, carry)
