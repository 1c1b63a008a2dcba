"""What hangs, or takes far longer than it used to, is reported."""

import contextlib
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

_TIMES = 5  # as long as the longest so far is far too long
_LEAST_SECONDS = 60.0
_FIRST_SECONDS = 1800.0  # of what compiles, or has nothing to compare with


class _Doing(NamedTuple):
  what: str
  begin: float


class Watch:
  """Looks on from a thread, and says what takes too long.

  Too long is five times the longest so far and at least a minute; half an hour
  where there was none, and the first of a kind, which compiles, is none. It is
  said again when the time has doubled. The run itself is left alone.

  Args:
    say: Takes the text: a line, then the stack of every thread.
    least_seconds: The minute.
    first_seconds: The half an hour.

  Example:
    >>> with Watch(print) as watch, watch.over("evaluation"):
    ...   pass
  """

  def __init__(
    self,
    say: Callable[[str], None],
    *,
    least_seconds: float = _LEAST_SECONDS,
    first_seconds: float = _FIRST_SECONDS,
  ):
    self._say = say
    self._least = least_seconds
    self._first = first_seconds
    self._doing: _Doing | None = None
    self._longest: dict[str, float] = {}
    self._closing = threading.Event()
    self._thread = threading.Thread(
      target=self._look_on, name="podscale-watch", daemon=True
    )

  def __enter__(self) -> Self:
    self._thread.start()
    return self

  def __exit__(self, *exception: object) -> None:
    self._closing.set()
    self._thread.join()

  @contextlib.contextmanager
  def over(self, what: str) -> Iterator[None]:
    """Watch what is done inside; one thing at a time."""
    self._doing = doing = _Doing(what, time.monotonic())
    try:
      yield
    finally:
      self._doing = None
      taken = time.monotonic() - doing.begin
      before = self._longest.get(what)
      self._longest[what] = 0.0 if before is None else max(before, taken)

  def _look_on(self) -> None:
    told: _Doing | None = None
    limit = 0.0
    while not self._closing.wait(self._least / 60):
      doing = self._doing
      if doing is None:
        continue
      if doing is not told:
        longest = self._longest.get(doing.what)
        limit = self._first
        if longest:
          limit = max(self._least, _TIMES * longest)
      seconds = time.monotonic() - doing.begin
      if seconds > limit:
        told, limit = doing, 2 * limit
        self._say(self._report(doing.what, seconds))

  def _report(self, what: str, seconds: float) -> str:
    longest = self._longest.get(what)
    usual = f", {longest:.1f} s at most before" if longest else ""
    return (
      f"{what} takes {seconds:.0f} s so far{usual}; every thread is at:\n"
      f"{_stacks()}"
    )


def _stacks() -> str:
  """The stack of every thread but this one."""
  names = {thread.ident: thread.name for thread in threading.enumerate()}
  return "\n".join(
    f"{names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
    for ident, frame in sys._current_frames().items()
    if ident != threading.get_ident()
  )
