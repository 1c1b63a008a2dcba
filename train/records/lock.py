"""Lock of a workdir, for one run at a time."""

import contextlib
import errno
import fcntl
import os
import socket
from pathlib import Path

from ..errors import UsageError

LOCK = "lock"
_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_MOST_OF_A_HOLDER = 200  # bytes


class WorkdirLock:
  """Lock that keeps other runs out of a workdir, from `take` to `close`.

  The lock is an exclusive `flock` on WORKDIR/lock. The system releases it when
  the process ends, even by a signal. On NFS, Linux turns it into a POSIX lock,
  which holds between hosts. The file names the host and the process that hold
  the lock. It stays after they end; only the lock on it counts.

  Args:
    workdir: Folder to lock; must exist when `take` is called.

  >>> import tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   with contextlib.closing(WorkdirLock(folder)) as lock:
  ...     lock.take()
  ''
  """

  def __init__(self, workdir: str | Path):
    self._workdir = Path(workdir)
    self._file: int | None = None

  def take(self) -> str:
    """Take the lock; do nothing if this object holds it already.

    Returns:
      A problem if the file system has no locks; else "".

    Raises:
      UsageError: Another run holds the lock, or the file cannot be opened.
    """
    if self._file is not None:
      return ""
    path = self._workdir / LOCK
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
      file = os.open(path, flags, 0o666)
    except OSError as e:
      raise UsageError(f"cannot write {path}: {e.strerror}") from e
    self._file = file
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
      if e.errno not in _HELD:
        return f"no lock on {path}: {e.strerror}"
      holder = _read_holder(file)
      self.close()
      raise UsageError(
        f"{self._workdir} is in use by another run ({holder}); wait until it "
        "ends, stop it, or choose another --workdir"
      ) from None
    _write_holder(file)
    return ""

  def close(self) -> None:
    """Release the lock, if it was taken."""
    if self._file is not None:
      os.close(self._file)
      self._file = None


def _write_holder(file: int) -> None:
  holder = f"process {os.getpid()} on {socket.gethostname()}\n"
  # On a full disk the lock still holds, but nothing names its holder.
  with contextlib.suppress(OSError):
    os.ftruncate(file, 0)
    os.pwrite(file, holder.encode(), 0)


def _read_holder(file: int) -> str:
  text = os.pread(file, _MOST_OF_A_HOLDER, 0).decode(errors="replace")
  return " ".join(text.split()) or "its host and process are unknown"
