"""Where the time of a run goes."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

STEPS = "steps"


class Account:
  """Seconds by what they were spent on, from its making to now.

  What is in no other entry is `STEPS`: the devices' work, and the host's beside
  it.

  >>> account = Account()
  >>> with account.spent_on("evaluation"):
  ...   pass
  >>> list(account.seconds())
  ['evaluation', 'steps']
  """

  def __init__(self):
    self._begin = time.perf_counter()
    self._seconds: dict[str, float] = {}
    self._inner = 0.0  # of the entry that is open, what inner ones have taken

  def add(self, what: str, seconds: float) -> None:
    """Book seconds that were measured elsewhere."""
    self._seconds[what] = self._seconds.get(what, 0.0) + seconds
    self._inner += seconds

  @contextlib.contextmanager
  def spent_on(self, what: str) -> Iterator[None]:
    """Book the time inside, but for what is booked there on something else."""
    outer, self._inner = self._inner, 0.0
    begin = time.perf_counter()
    try:
      yield
    finally:
      taken = time.perf_counter() - begin
      self.add(what, taken - self._inner)
      self._inner = outer + taken

  def first_call(self, what: str, function: Callable) -> Callable:
    """The same function, whose first call is booked: a jitted one compiles."""
    called = False

    def booked(*args: Any) -> Any:
      nonlocal called
      if called:
        return function(*args)
      called = True
      with self.spent_on(what):
        return function(*args)

    return booked

  def seconds(self) -> dict[str, float]:
    """All entries, which together are the time since the account was made."""
    rest = time.perf_counter() - self._begin - sum(self._seconds.values())
    return self._seconds | {STEPS: rest}
