"""A folder of image files: train/CLASS/*.jpg and val/CLASS/*.jpg."""

import os
from collections.abc import Iterator
from pathlib import Path

from ...errors import UsageError
from ..source import Split, hash_listing
from .encoded import EncodedImages, StoredImage, StoredLabel, read_file

FOLDERS: dict[Split, str] = {"train": "train", "test": "val"}
_SUFFIXES = (".jpg", ".jpeg", ".png")


class ImageFolder(EncodedImages):
  """JPEG and PNG files, one folder for each class.

  The classes are the sorted names of the folders in train/; val/ may lack some
  of them. The examples are one of each class, then the next of each, so that
  the first few are of all classes. Files and folders whose name starts with a
  dot are left out.
  """

  def __init__(self, path: Path, split: Split):
    """Look for the images in `path`.

    Raises:
      UsageError: a folder is missing or empty, holds other files, or val/ has
        classes that train/ has not.
    """
    self._root = path
    names = _classes(path / "train")
    self._files = _files(path / FOLDERS[split], names)
    super().__init__(len(self._files), len(names), names)

  @property
  def whole_listing(self) -> str:
    """Hash the files' paths below the folder, in order."""
    return hash_listing(
      os.path.relpath(path, self._root) for path, _ in self._files
    )

  def read(self, index: int) -> StoredImage:
    """Read a file; its label is its class."""
    path, label = self._files[index]
    return StoredImage(read_file(path), label)

  def labels(self) -> Iterator[StoredLabel]:
    """Yield the classes of all files in order."""
    for index in range(len(self)):
      yield StoredLabel(index, self._files[index][1])

  def where(self, index: int) -> str:
    """Its path."""
    return self._files[index][0]


def _classes(folder: Path) -> list[str]:
  try:
    with os.scandir(folder) as entries:
      names = [e.name for e in entries if e.is_dir() and e.name[0] != "."]
  except OSError as error:
    raise UsageError(
      f"{folder}: {error.strerror}; images are read from train/CLASS/*.jpg and "
      "val/CLASS/*.jpg"
    ) from None
  if not names:
    raise UsageError(f"{folder}: no class folders in it")
  return sorted(names)


def _files(folder: Path, class_names: list[str]) -> list[tuple[str, int]]:
  labels = {name: label for label, name in enumerate(class_names)}
  ranked = []
  for name in _classes(folder):
    if name not in labels:
      raise UsageError(
        f"{folder / name}: class {name!r} is not among the "
        f"{len(labels)} classes in train/"
      )
    for rank, path in enumerate(_images(folder / name)):
      ranked.append((rank, labels[name], path))
  return [(path, label) for rank, label, path in sorted(ranked)]


def _images(folder: Path) -> list[str]:
  names = sorted(name for name in os.listdir(folder) if name[0] != ".")
  for name in names:
    if not name.lower().endswith(_SUFFIXES):
      raise UsageError(f"{folder / name}: not one of {', '.join(_SUFFIXES)}")
  if not names:
    raise UsageError(f"{folder}: no images in it")
  return [os.path.join(folder, name) for name in names]
