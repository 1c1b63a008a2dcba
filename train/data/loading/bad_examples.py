"""Bad examples: stop at the first, or skip a few."""

import threading

from ...errors import UsageError


class Skips:
  """The bad examples that were skipped, up to a limit.

  Args:
    limit: Largest number of different examples; with 0 the first raises.

  >>> skips = Skips(1)
  >>> skips.add("a.jpg", "truncated")
  >>> skips.add("a.jpg", "truncated")  # in the next epoch
  >>> skips.summary()
  'skipped 1 bad example: a.jpg: truncated'
  """

  def __init__(self, limit: int):
    self._limit = limit
    self._reasons: dict[str, str] = {}
    self._lock = threading.Lock()

  def __len__(self) -> int:
    return len(self._reasons)

  @property
  def reasons(self) -> dict[str, str]:
    """Reason for each skipped example, by its place; a copy."""
    with self._lock:
      return dict(self._reasons)

  def add(self, where: str, reason: object) -> None:
    """Add a skipped example; threads may call this at the same time.

    Args:
      where: Place of the example: its file and record.
      reason: Reason to skip it.

    Raises:
      UsageError: The limit is exceeded; the message has place and reason.
    """
    with self._lock:
      if where in self._reasons:
        return
      if len(self._reasons) >= self._limit:
        raise UsageError(
          f"{where}: {reason}; exceeded --data.skip-bad {self._limit}, give a "
          "larger number to skip bad images"
        )
      self._reasons[where] = str(reason)

  def summary(self) -> str:
    """Name all skipped examples in one line."""
    count = len(self._reasons)
    each = "; ".join(f"{w}: {r}" for w, r in self._reasons.items())
    return f"skipped {count} bad example{'s' * (count != 1)}: {each}"
