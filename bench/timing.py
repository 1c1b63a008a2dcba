"""Timing a compiled function on the devices at hand."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Timing(NamedTuple):
  """Times of one function, in seconds.

  Attributes:
    lower: Tracing and lowering.
    compile: Compiling what was lowered.
    runs: Each timed run, in order.
    first: What the warm-up run returned.
  """

  lower: float
  compile: float
  runs: list[float]
  first: Any

  @property
  def median(self) -> float:
    """The run in the middle."""
    return statistics.median(self.runs)


def compile_and_time(
  function: Callable[..., Any],
  *args: Any,
  runs: int,
  carry: bool = False,
) -> Timing:
  """Compiles a function and times it by the wall clock, after one warm-up.

  Args:
    function: To be jitted, or jitted already.
    *args: What to call it with.
    runs: How many runs to time.
    carry: The function donates its first argument and returns its successor
      first, as a training step does.
  """
  start = time.perf_counter()
  lowered = jax.jit(function).lower(*args)
  lowered_at = time.perf_counter()
  compiled = lowered.compile()
  compiled_at = time.perf_counter()
  seconds = []
  first = result = jax.block_until_ready(compiled(*args))
  for _ in range(runs):
    if carry:
      args = (result[0], *args[1:])
    begin = time.perf_counter()
    result = jax.block_until_ready(compiled(*args))
    seconds.append(time.perf_counter() - begin)
  return Timing(lowered_at - start, compiled_at - lowered_at, seconds, first)
