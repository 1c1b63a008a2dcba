"""Times of a compiled function on the devices at hand."""

import statistics
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax

from ..compiled.peak_memory import peak_bytes
from .device_time import run_profiled

Clock = Literal["device", "wall"]


class Timing(NamedTuple):
  """Times of one function, in seconds.

  Attributes:
    lower: Time of tracing and lowering.
    compile: Time of compiling.
    runs: Time of each run, in order.
    clock: "device" for the busiest device's time by the profiler, or "wall".
    peak_bytes: Memory on each device; see `compiled.peak_memory`.
    first: Result of the warm-up run.
  """

  lower: float
  compile: float
  runs: list[float]
  clock: Clock
  peak_bytes: int
  first: Any

  @property
  def median(self) -> float:
    """Median time of a run."""
    return statistics.median(self.runs)

  def row(self) -> dict[str, Any]:
    """Return the figures of a benchmark's row."""
    return {
      "median_s": self.median,
      "min_s": min(self.runs),
      "max_s": max(self.runs),
      "clock": self.clock,
      "lower_s": self.lower,
      "compile_s": self.compile,
      "peak_bytes": self.peak_bytes,
      "samples_s": self.runs,
    }


def compile_and_time(
  function: Callable[..., Any],
  *args: Any,
  runs: int,
  carry: bool = False,
) -> Timing:
  """Compile a function and time it, after one warm-up run.

  Times come from the profiler where it sees the devices, else from the wall
  clock.

  Args:
    function: Function, jitted or not.
    *args: Arguments of every run.
    runs: Number of timed runs.
    carry: True if the function donates its first argument and returns the
      argument's successor first, as a training step does.
  """
  start = time.perf_counter()
  lowered = jax.jit(function).lower(*args)
  lowered_at = time.perf_counter()
  compiled = lowered.compile()
  compiled_at = time.perf_counter()
  walls, devices = [], []
  first = result = jax.block_until_ready(compiled(*args))
  for _ in range(runs):
    if carry:
      args = (result[0], *args[1:])
    result, wall, device = _timed(compiled, args)
    walls.append(wall)
    devices.append(device)
  busy = [seconds for seconds in devices if seconds is not None]
  profiled = len(busy) == runs
  return Timing(
    lower=lowered_at - start,
    compile=compiled_at - lowered_at,
    runs=busy if profiled else walls,
    clock="device" if profiled else "wall",
    peak_bytes=peak_bytes(compiled),
    first=first,
  )


def _timed(compiled: Any, args: Any) -> tuple[Any, float, float | None]:
  """Return a result, and its seconds by the wall clock and the profiler."""

  def run() -> tuple[Any, float]:
    begin = time.perf_counter()
    result = jax.block_until_ready(compiled(*args))
    return result, time.perf_counter() - begin

  if jax.default_backend() == "cpu":  # the profiler does not see CPUs
    return *run(), None
  (result, wall), device = run_profiled(run)
  return result, wall, device
