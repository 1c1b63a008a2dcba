"""Keep what Orbax prints of its failures off the terminal.

Orbax reads and writes arrays in coroutines. Where one fails the others are
abandoned, and their complaints, each with a stack trace, follow from several
threads, after the error that a `SaveError` or `DamagedError` puts in one line.
"""

import inspect
import logging
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

_LOGGERS = ("absl", "asyncio")


def silence_orbax() -> None:
  """Drop Orbax's log records and abandoned errors, from now on."""
  for name in _LOGGERS:
    logging.getLogger(name).addFilter(_is_not_of_orbax)
  if not isinstance(sys.unraisablehook, _Hook):
    sys.unraisablehook = _Hook(sys.unraisablehook)


class _Hook:
  """A `sys.unraisablehook` that passes on what is not Orbax's.

  Args:
    passed_on: The hook before.
  """

  def __init__(self, passed_on: Callable[[Any], object]):
    self._passed_on = passed_on

  def __call__(self, unraisable: Any) -> None:
    abandoned = unraisable.object
    of_orbax = (
      inspect.iscoroutine(abandoned)
      and "/orbax/" in abandoned.cr_code.co_filename
    )
    # What TensorStore's threads raise: Orbax has closed its event loop.
    if not of_orbax and str(unraisable.exc_value) != "Event loop is closed":
      self._passed_on(unraisable)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
  if "/orbax/" in record.pathname:
    return False
  traceback = record.exc_info[2] if record.exc_info else None
  text = record.getMessage()
  return not (
    "/orbax/" in text or "TensorStore" in text or _in_orbax(traceback)
  )


def _in_orbax(traceback: TracebackType | None) -> bool:
  while traceback is not None:
    if "/orbax/" in traceback.tb_frame.f_code.co_filename:
      return True
    traceback = traceback.tb_next
  return False
