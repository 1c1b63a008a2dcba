"""Folders that nobody has written to."""

from pathlib import Path

from ..errors import UsageError
from ..log import make_folder


def make_new_folder(path: Path) -> None:
  """Make a folder, or take one that is empty.

  Raises:
    UsageError: it holds something, is a file, or cannot be made.
  """
  make_folder(path)
  try:
    first = next(path.iterdir(), None)
  except OSError as error:
    raise UsageError(f"{path}: {error.strerror}") from None
  if first:
    raise UsageError(
      f"{path}: is not empty, it holds {first.name}; choose another folder"
    )
