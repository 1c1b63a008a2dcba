"""Image files: a folder for each class, or one folder and a label file."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ....errors import UsageError
from ...source import hash_listing
from ..paths import counts_by_kind, file_kind, list_folder, visible
from .encoded import (
  IMAGE_SUFFIXES,
  EncodedImages,
  StoredImage,
  StoredLabel,
  read_file,
)
from .label_files import read_labels

_LISTED_AT_ONCE = 16  # helps on network disks; local disks need only one
_DEEPEST = 8
_MOST_NAMED = 5


class ImageFiles(EncodedImages):
  """Image files below a folder.

  Args:
    folder: Folder of the images.
    files: Path below the folder and label, from 0, of each image.
    num_classes: Number of classes.
    class_names: Names by label, if known.
    ignored: Number of other files, by suffix.
  """

  labels_are_classes = True

  def __init__(
    self,
    folder: Path,
    files: Sequence[tuple[str, int]],
    num_classes: int,
    class_names: Sequence[str] | None,
    ignored: Counter[str],
  ):
    super().__init__(len(files), num_classes, class_names)
    self._folder = folder
    self._files = files
    if ignored:
      self.left_out = (f"{counts_by_kind(ignored)} in {folder.name}/",)

  @property
  def whole_listing(self) -> str:
    """Hash of the labels and the paths below the folder, in order."""
    return hash_listing(f"{label} {path}" for path, label in self._files)

  def read(self, index: int) -> StoredImage:
    """Read an image file; its label is its class."""
    path, label = self._files[index]
    return StoredImage(read_file(self._folder / path), label)

  def labels(self) -> Iterator[StoredLabel]:
    """Yield the labels of all files in order."""
    for index in range(len(self)):
      yield StoredLabel(index, self._files[index][1])

  def where(self, index: int) -> str:
    """Return an image's path."""
    return str(self._folder / self._files[index][0])


def open_class_folders(
  folder: Path, class_names: Sequence[str] | None = None
) -> ImageFiles:
  """Open a split with a folder for each class.

  The order takes one example of each class, then the next of each, so that the
  first few examples cover all classes.

  Args:
    folder: Folder of the class folders. Images may lie in folders below them;
      hidden files and files that are not images are ignored.
    class_names: Classes by label, of which some may be missing here; None takes
      the sorted names of the folders.

  Raises:
    UsageError: There are no class folders, one has no images, or its name is
      not among the classes.
  """
  here = [e.name for e in visible(list_folder(folder)) if e.is_dir]
  if not here:
    raise UsageError(
      f"{folder}: has no class folders; put the images into a folder for each "
      "class"
    )
  names = here if class_names is None else class_names
  labels = {name: label for label, name in enumerate(names)}
  unknown = [name for name in here if name not in labels]
  if unknown:
    raise UsageError(
      f"{folder}: {len(unknown)} of its classes are not among the "
      f"{len(labels)} classes of the training images: "
      f"{', '.join(unknown[:_MOST_NAMED])}"
      f"{', ...' * (len(unknown) > _MOST_NAMED)}"
    )
  with ThreadPoolExecutor(_LISTED_AT_ONCE) as pool:
    listed = list(pool.map(lambda name: _list_images(folder / name), here))
  ignored: Counter[str] = Counter()
  ranked = []
  for name, (images, others) in zip(here, listed, strict=True):
    if not images:
      left_out = f", only {counts_by_kind(others)}" if others else ""
      raise UsageError(
        f"{folder / name}: this class folder has no images{left_out}; fill it "
        "or remove it"
      )
    ignored += others
    for rank, image in enumerate(images):
      ranked.append((rank, labels[name], f"{name}/{image}"))
  files = [(path, label) for _, label, path in sorted(ranked)]
  return ImageFiles(folder, files, len(labels), names, ignored)


def open_labelled_files(
  folder: Path,
  labels: Path,
  num_classes: int,
  class_names: Sequence[str] | None = None,
  first_label: int | None = None,
) -> ImageFiles:
  """Open a split whose images lie in one folder beside a label file.

  Args:
    folder: Folder of the images.
    labels: Path of the label file, see `read_labels`.
    num_classes: Number of classes.
    class_names: Names by label, if known.
    first_label: Label of the first class, if the file has numbers; None takes
      0 if it occurs.

  Raises:
    UsageError: The labels do not fit the images or the classes.
  """
  images, ignored = _list_images(folder)
  if labels.parent == folder:
    ignored[file_kind(labels.name)] -= 1
  found = read_labels(labels, images, class_names, first_label)
  first = first_label or 0
  if not 0 <= min(found, default=-1) <= max(found, default=-1) < num_classes:
    raise UsageError(
      f"{labels}: has the labels {min(found) + first} to "
      f"{max(found) + first}, but the {num_classes} classes are {first} to "
      f"{num_classes - 1 + first}"
    )
  files = list(zip(images, found, strict=True))
  return ImageFiles(folder, files, num_classes, class_names, +ignored)


def _list_images(
  folder: Path, deep: int = _DEEPEST
) -> tuple[list[str], Counter[str]]:
  """List the images below a folder, and count other files by suffix."""
  if not deep:
    raise UsageError(
      f"{folder}: lies more than {_DEEPEST} folders below its class; remove "
      "links that lead back"
    )
  images: list[str] = []
  others: Counter[str] = Counter()
  for name, is_dir in visible(list_folder(folder)):
    if is_dir:
      below, more = _list_images(folder / name, deep - 1)
      images += [f"{name}/{path}" for path in below]
      others += more
    elif name.lower().endswith(IMAGE_SUFFIXES):
      images.append(name)
    else:
      others[file_kind(name)] += 1
  return images, others
