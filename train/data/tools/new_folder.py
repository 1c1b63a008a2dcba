"""Folders that nobody has written to."""

from pathlib import Path

from ...errors import UsageError
from ...records.files import make_folder


def check_new_folder(path: Path) -> None:
  """Check that a folder is empty or not there.

  Raises:
    UsageError: it holds something, or is a file.
  """
  try:
    first = next(path.iterdir(), None)
  except FileNotFoundError:
    return
  except OSError as error:
    raise UsageError(f"{path}: {error.strerror}") from None
  if first:
    raise UsageError(
      f"{path}: is not empty, it holds {first.name}; choose another folder"
    )


def make_new_folder(path: Path) -> None:
  """Make a folder, or take one that is empty.

  Raises:
    UsageError: it holds something, is a file, or cannot be made.
  """
  check_new_folder(path)
  make_folder(path)
