"""New folders to write to."""

from pathlib import Path

from ...errors import UsageError
from ...records.files import make_folder


def check_new_folder(path: Path) -> None:
  """Check that a folder is empty or does not exist.

  Raises:
    UsageError: The folder is not empty, or is a file.
  """
  try:
    first = next(path.iterdir(), None)
  except FileNotFoundError:
    return
  except OSError as error:
    raise UsageError(f"{path}: {error.strerror}") from None
  if first:
    raise UsageError(
      f"{path}: not empty, it holds {first.name}; choose another folder"
    )


def make_new_folder(path: Path) -> None:
  """Create a folder, or accept an empty one.

  Raises:
    UsageError: The folder is not empty, is a file, or cannot be created.
  """
  check_new_folder(path)
  make_folder(path)
