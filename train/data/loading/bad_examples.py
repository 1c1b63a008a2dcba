"""Examples that cannot be used: stop at them, or leave out a few."""

import threading

from ...errors import UsageError


class Skips:
  """A list of the examples that were left out, up to a number of them.

  Args:
    most: How many different ones; with 0 the first is an error.

  >>> skips = Skips(1)
  >>> skips.add("a.jpg", "truncated")
  >>> skips.add("a.jpg", "truncated")  # in the next epoch
  >>> skips.summary()
  'skipped 1 bad example: a.jpg: truncated'
  """

  def __init__(self, most: int):
    self._most = most
    self._reasons: dict[str, str] = {}
    self._lock = threading.Lock()

  def __len__(self) -> int:
    return len(self._reasons)

  @property
  def reasons(self) -> dict[str, str]:
    """Copy the reason for each example left out, by its place."""
    with self._lock:
      return dict(self._reasons)

  def add(self, where: str, reason: object) -> None:
    """Count an example; safe to call from threads.

    Raises:
      UsageError: it is one too many; the message has its place and the reason.
    """
    with self._lock:
      if where in self._reasons:
        return
      if len(self._reasons) >= self._most:
        raise UsageError(
          f"{where}: {reason}; to leave out bad images give --data.skip-bad a "
          f"number above {self._most}"
        )
      self._reasons[where] = str(reason)

  def summary(self) -> str:
    """Name all of them in one line."""
    count = len(self._reasons)
    each = "; ".join(f"{w}: {r}" for w, r in self._reasons.items())
    return f"skipped {count} bad example{'s' * (count != 1)}: {each}"
