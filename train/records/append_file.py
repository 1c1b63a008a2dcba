"""A file of lines, or of other records, that a full disk does not break."""

import os
from pathlib import Path


class Lines:
  """Appends whole lines to a file; nobody else may write to it.

  Lines that the disk does not take are kept, and written before the next.

  Args:
    path: The file; made if it is not there.

  Raises:
    OSError: If it cannot be opened.
  """

  def __init__(self, path: Path):
    self._file = path.open("ab", buffering=0)
    self._kept = b""

  def add(self, lines: bytes) -> str:
    """Append one or more, each whole.

    Returns:
      Why it is kept and not written; "" where it is written.
    """
    self._kept += lines
    end = os.fstat(self._file.fileno()).st_size
    rest = memoryview(self._kept)
    try:
      while rest:
        rest = rest[self._file.write(rest) :]
    except OSError as error:
      self._file.truncate(end)  # no part of a line stays
      return str(error.strerror)
    self._kept = b""
    return ""

  def close(self) -> int:
    """Close the file; returns how many bytes could not be written."""
    self.add(b"")
    self._file.close()
    return len(self._kept)
