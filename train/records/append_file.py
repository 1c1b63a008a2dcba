"""File of records that a full disk does not corrupt."""

import os
from pathlib import Path


class AppendFile:
  """File to which whole records are appended, by this process alone.

  Records that do not fit on the disk stay in memory and are written before the
  next ones.

  Args:
    path: File to append to; made if missing.

  Raises:
    OSError: The file cannot be opened.
  """

  def __init__(self, path: Path):
    self._file = path.open("ab", buffering=0)
    self._kept = b""

  def append(self, records: bytes) -> str:
    """Append whole records.

    Args:
      records: One or more whole records.

    Returns:
      The reason why they stay in memory; "" if they are written.
    """
    self._kept += records
    end = os.fstat(self._file.fileno()).st_size
    rest = memoryview(self._kept)
    try:
      while rest:
        rest = rest[self._file.write(rest) :]
    except OSError as error:
      self._file.truncate(end)  # removes an incomplete record
      return str(error.strerror)
    self._kept = b""
    return ""

  def close(self) -> int:
    """Close the file; return the number of bytes that could not be written."""
    self.append(b"")
    self._file.close()
    return len(self._kept)
