"""Keep what libraries print off the terminal, in a file.

XLA, Gloo, gRPC and libtpu write to file descriptors 1 and 2, in the middle of
the run's own lines. So these lead to a file, and `sys.stdout` and `sys.stderr`
to where they led before. Only the command line does this.
"""

import atexit
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import NoReturn, TextIO

from . import crash_notifier

_MOST_BYTES = 2**20  # of earlier processes; the file begins anew then
_SHOW_CURSOR = b"\x1b[?25h"
_file: Path | None = None  # where the descriptors lead


def divert() -> None:
  """Lead descriptors 1 and 2, warnings and logging to a temporary file.

  Where the system does not allow it everything stays on the terminal.
  """
  global _file
  try:
    streams = [_copy(stream) for stream in (sys.stdout, sys.stderr)]
    descriptor, name = tempfile.mkstemp(prefix="podscale-", suffix=".log")
  except OSError:
    return
  _file = Path(name)
  atexit.register(discard)
  _lead_to(descriptor)
  sys.stdout, sys.stderr = streams
  # Of Python's own: "WARNING:absl:..." and the like.
  logging.basicConfig(stream=os.fdopen(2, "w", buffering=1, closefd=False))
  logging.captureWarnings(True)
  crash_notifier.name_file(_file)


def keep_in(workdir: Path, process: int) -> None:
  """Append what was printed so far to a file in the workdir, and what follows.

  Nothing is done in a process that has not diverted its libraries' lines, or
  where the file cannot be written.

  Args:
    workdir: A folder that the run has claimed.
    process: The number of this process, which has a file of its own.
  """
  global _file
  if _file is None:
    return
  path = workdir / f"libraries{f'-{process}' if process else ''}.log"
  try:
    so_far = _file.read_bytes()
    is_long = path.exists() and path.stat().st_size > _MOST_BYTES
    mode = os.O_TRUNC if is_long else os.O_APPEND
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | mode)
    os.write(descriptor, so_far)
  except OSError:
    return
  _lead_to(descriptor)
  discard()
  _file = path
  crash_notifier.name_file(path)


def leave(code: int) -> NoReturn:
  """End the process at once, whatever its threads are at."""
  discard()
  crash_notifier.goodbye()
  sys.stdout.flush()
  if sys.stdout.isatty():
    os.write(sys.stdout.fileno(), _SHOW_CURSOR)  # a bar has hidden it
  os._exit(code)


def discard() -> None:
  """Remove the temporary file; one in a workdir stays."""
  if _file is not None and _file.name.startswith("podscale-"):
    _file.unlink(missing_ok=True)


def _copy(stream: TextIO) -> TextIO:
  stream.flush()
  return open(
    os.dup(stream.fileno()),
    "w",
    buffering=1,
    encoding=stream.encoding,
    errors=stream.errors,
  )


def _lead_to(descriptor: int) -> None:
  for number in (1, 2):
    os.dup2(descriptor, number)
  os.close(descriptor)
