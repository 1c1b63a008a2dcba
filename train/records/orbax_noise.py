"""Filter for Orbax's error output.

Orbax reads and writes arrays in coroutines. If one fails, Orbax abandons the
others, and each prints a stack trace from its thread. `SaveError` and
`DamagedError` already report the failure in one line.
"""

import inspect
import logging
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

_LOGGERS = ("absl", "asyncio")


def silence_orbax() -> None:
  """Drop Orbax's log records and the errors of its abandoned coroutines."""
  for name in _LOGGERS:
    logging.getLogger(name).addFilter(_is_not_from_orbax)
  if not isinstance(sys.unraisablehook, _Hook):
    sys.unraisablehook = _Hook(sys.unraisablehook)


class _Hook:
  """Replacement of `sys.unraisablehook` that drops Orbax's errors.

  Args:
    previous: Hook that gets all other errors.
  """

  def __init__(self, previous: Callable[[Any], object]):
    self._previous = previous

  def __call__(self, unraisable: Any) -> None:
    abandoned = unraisable.object
    from_orbax = (
      inspect.iscoroutine(abandoned)
      and "/orbax/" in abandoned.cr_code.co_filename
    )
    # TensorStore's threads raise this after Orbax has closed its event loop.
    if not from_orbax and str(unraisable.exc_value) != "Event loop is closed":
      self._previous(unraisable)


def _is_not_from_orbax(record: logging.LogRecord) -> bool:
  if "/orbax/" in record.pathname:
    return False
  traceback = record.exc_info[2] if record.exc_info else None
  text = record.getMessage()
  # TensorStore raises in C++, so its errors have no traceback.
  from_tensorstore = "tensorstore" in text.lower()
  return not ("/orbax/" in text or from_tensorstore or _in_orbax(traceback))


def _in_orbax(traceback: TracebackType | None) -> bool:
  while traceback is not None:
    if "/orbax/" in traceback.tb_frame.f_code.co_filename:
      return True
    traceback = traceback.tb_next
  return False
