"""Redirection of the libraries' output from the terminal to a file.

XLA, Gloo, gRPC and libtpu write to file descriptors 1 and 2, in between the
run's own lines. `divert` points these descriptors to a file, and `sys.stdout`
and `sys.stderr` to the terminal. Only the command line calls it.
"""

import atexit
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import NoReturn, TextIO

from . import crash_notifier

_MOST_BYTES = 2**20  # a longer file of earlier processes is overwritten
_SHOW_CURSOR = b"\x1b[?25h"
_file: Path | None = None  # target of the descriptors


def divert() -> None:
  """Redirect descriptors 1 and 2, warnings and logging to a temporary file.

  If the system refuses, all output stays on the terminal.
  """
  global _file
  try:
    streams = [_copy(stream) for stream in (sys.stdout, sys.stderr)]
    descriptor, name = tempfile.mkstemp(prefix="podscale-", suffix=".log")
  except OSError:
    return
  _file = Path(name)
  atexit.register(discard)
  _redirect_to(descriptor)
  sys.stdout, sys.stderr = streams
  # Python's own log lines, such as "WARNING:absl:...".
  logging.basicConfig(stream=os.fdopen(2, "w", buffering=1, closefd=False))
  logging.captureWarnings(True)
  crash_notifier.name_file(_file)


def keep_in(workdir: Path, process: int) -> None:
  """Move the libraries' output to a file in the workdir, and keep it there.

  This does nothing if `divert` has not been called or the file cannot be
  written.

  Args:
    workdir: Folder that the run has claimed.
    process: Number of this process, which is part of the file's name.
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
  _redirect_to(descriptor)
  discard()
  _file = path
  crash_notifier.name_file(path)


def leave(code: int) -> NoReturn:
  """End the process at once, without waiting for its threads.

  Args:
    code: Exit code.
  """
  discard()
  crash_notifier.goodbye()
  sys.stdout.flush()
  if sys.stdout.isatty():
    os.write(sys.stdout.fileno(), _SHOW_CURSOR)  # a progress bar hides it
  os._exit(code)


def discard() -> None:
  """Remove the temporary file; a file in a workdir stays."""
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


def _redirect_to(descriptor: int) -> None:
  for number in (1, 2):
    os.dup2(descriptor, number)
  os.close(descriptor)
