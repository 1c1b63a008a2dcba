"""Folders and files that a run writes, with errors in one line."""

import contextlib
import errno
import os
from pathlib import Path

from ..errors import UsageError


def make_folder(path: Path) -> None:
  """Make the folder `path` and the folders above it.

  Raises:
    UsageError: The folder cannot be made.
  """
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as e:
    reason = _obstacle(path) or e.strerror
    raise UsageError(f"cannot make the folder {path}: {reason}") from e


def _obstacle(path: Path) -> str:
  """Describe the file or link that blocks a folder; "" if nothing does."""
  for place in (*reversed(path.parents), path):
    if os.path.isdir(place) or not os.path.lexists(place):
      continue
    if not os.path.islink(place):
      return f"{place} is a file"
    link = f"{place} is a link to {os.readlink(place)}"
    try:
      os.stat(place)
    except OSError as e:
      if e.errno == errno.ELOOP:
        return f"{link}, which leads back to itself"
      return f"{link}, which does not exist"
    return f"{link}, a file"
  return ""


def write_atomically(path: Path, content: str | bytes) -> None:
  """Replace a file in one step, so that a crash leaves it old or new.

  Args:
    path: File to replace; missing folders above it are made.
    content: Bytes, or text to encode in UTF-8.

  Raises:
    UsageError: The file cannot be written.
  """
  make_folder(path.parent)
  data = content.encode() if isinstance(content, str) else content
  beside = path.with_name(path.name + ".tmp")
  try:
    with beside.open("wb") as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    beside.replace(path)
  except OSError as e:
    with contextlib.suppress(OSError):
      beside.unlink()
    raise UsageError(f"cannot write {path}: {e.strerror}") from e
