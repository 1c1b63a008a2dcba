"""Wall time of a process, by activity."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

STEPS = "steps"


class WallTime:
  """Seconds by activity, from the construction of this object to now.

  `STEPS` is the rest: time that belongs to no other activity. It covers the
  devices' work, and the host's work beside it.

  >>> wall_time = WallTime()
  >>> with wall_time.measure("evaluation"):
  ...   pass
  >>> list(wall_time.seconds())
  ['evaluation', 'steps']
  """

  def __init__(self):
    self._begin = time.perf_counter()
    self._seconds: dict[str, float] = {}
    self._inner = 0.0  # seconds that activities inside the open one took

  def add(self, activity: str, seconds: float) -> None:
    """Add seconds that the caller has measured."""
    self._seconds[activity] = self._seconds.get(activity, 0.0) + seconds
    self._inner += seconds

  @contextlib.contextmanager
  def measure(self, activity: str) -> Iterator[None]:
    """Add the time inside, except that of activities measured there."""
    outer, self._inner = self._inner, 0.0
    begin = time.perf_counter()
    try:
      yield
    finally:
      taken = time.perf_counter() - begin
      self.add(activity, taken - self._inner)
      self._inner = outer + taken

  def time_first_call(self, activity: str, function: Callable) -> Callable:
    """Wrap a function to measure its first call, in which `jit` compiles."""
    called = False

    def timed(*args: Any) -> Any:
      nonlocal called
      if called:
        return function(*args)
      called = True
      with self.measure(activity):
        return function(*args)

    return timed

  def seconds(self) -> dict[str, float]:
    """Return the seconds of all activities; they add up to the whole time."""
    rest = time.perf_counter() - self._begin - sum(self._seconds.values())
    return self._seconds | {STEPS: rest}
