"""Watchdog: reports work that hangs or takes far longer than before."""

import contextlib
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

_FACTOR = 5  # too long is this many times the longest duration so far
_LEAST_SECONDS = 60.0
_FIRST_SECONDS = 1800.0  # for work that compiles or ran only once before


class _Work(NamedTuple):
  name: str
  begin: float


class Watchdog:
  """Thread that reports work that takes too long; it never stops the run.

  Too long is five times the longest duration so far, and at least a minute. The
  first work of a name may compile, so its duration does not count; until there
  is one that counts, the limit is half an hour. Each report doubles the limit
  for the next.

  Args:
    say: Function that takes a report: a line, then the stack of every thread.
    least_seconds: Least limit, in seconds.
    first_seconds: Limit without an earlier duration, in seconds.
    clock: Function that returns the time in seconds.

  Example:
    >>> with Watchdog(print) as watchdog, watchdog.watch("evaluation"):
    ...   pass
  """

  def __init__(
    self,
    say: Callable[[str], None],
    *,
    least_seconds: float = _LEAST_SECONDS,
    first_seconds: float = _FIRST_SECONDS,
    clock: Callable[[], float] = time.monotonic,
  ):
    self._say = say
    self._least = least_seconds
    self._first = first_seconds
    self._clock = clock
    self._work: _Work | None = None
    self._longest: dict[str, float] = {}
    self._reported: _Work | None = None
    self._limit = 0.0  # for `_reported`
    self._closing = threading.Event()
    self._thread = threading.Thread(
      target=self._run, name="podscale-watchdog", daemon=True
    )

  def __enter__(self) -> Self:
    self._thread.start()
    return self

  def __exit__(self, *exception: object) -> None:
    self._closing.set()
    self._thread.join()

  @contextlib.contextmanager
  def watch(self, name: str) -> Iterator[None]:
    """Watch the work inside; calls must not be nested.

    Args:
      name: Name of the work, by which its durations are compared.
    """
    self._work = work = _Work(name, self._clock())
    try:
      yield
    finally:
      self._work = None
      taken = self._clock() - work.begin
      before = self._longest.get(name)
      self._longest[name] = 0.0 if before is None else max(before, taken)

  def check(self) -> None:
    """Report the current work if it has exceeded its limit."""
    work = self._work
    if work is None:
      return
    limit = self._limit
    if work is not self._reported:
      longest = self._longest.get(work.name)
      limit = max(self._least, _FACTOR * longest) if longest else self._first
    seconds = self._clock() - work.begin
    if seconds > limit:
      self._reported, self._limit = work, 2 * limit
      self._say(self._report(work.name, seconds))

  def _run(self) -> None:
    while not self._closing.wait(self._least / 60):
      self.check()

  def _report(self, name: str, seconds: float) -> str:
    longest = self._longest.get(name)
    usual = f", at most {longest:.1f} s before" if longest else ""
    return (
      f"{name} takes {seconds:.0f} s so far{usual}; stacks of all threads:\n"
      f"{_stacks()}"
    )


def _stacks() -> str:
  """Return the stack of every thread but this one."""
  names = {thread.ident: thread.name for thread in threading.enumerate()}
  return "\n".join(
    f"{names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
    for ident, frame in sys._current_frames().items()
    if ident != threading.get_ident()
  )
