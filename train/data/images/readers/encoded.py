"""The base class of all sources of image files."""

import abc
import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ....errors import UsageError, one_line
from ...source import (
  IMAGENET_MEAN,
  IMAGENET_STD,
  BadExampleError,
  Decoding,
  Example,
  hash_listing,
)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""Suffixes of image files, in lower case."""


class StoredImage(NamedTuple):
  """An image file and its label, as stored.

  Attributes:
    file: Bytes of the image file.
    label: Label in the data set.
    first_label: Label of the first class in data sets of this format, 0 or 1.
  """

  file: bytes
  label: int
  first_label: int = 0


class StoredLabel(NamedTuple):
  """The label of one example, as stored.

  Attributes:
    example: Index of the example in the split.
    label: Label in the data set.
    first_label: Label of the first class in data sets of this format, 0 or 1.
  """

  example: int
  label: int
  first_label: int = 0


class EncodedImages(abc.ABC):
  """A `Source` of image files that are not decoded.

  Args:
    count: Number of examples.
    num_classes: Number of classes.
    class_names: Names by class, if known.
    label_offset: Label of the first class in the data set; None takes the
      default of the format.

  Attributes:
    description: Format and place, for people.
    left_out: Ignored files beside the images, for people.
    labels_are_classes: True if opening checked that all labels are classes.
  """

  description = ""
  left_out: tuple[str, ...] = ()
  labels_are_classes = False
  mean = IMAGENET_MEAN
  std = IMAGENET_STD
  # EfficientNet's padding at the time of the paper (tensorflow/tpu,
  # preprocessing.py).
  eval_padding = 32
  decoding = Decoding()

  def __init__(
    self,
    count: int,
    num_classes: int,
    class_names: Sequence[str] | None = None,
    *,
    label_offset: int | None = None,
  ):
    self._count = count
    self.num_classes = num_classes
    self.label_offset = label_offset
    self.class_names = None if class_names is None else tuple(class_names)

  def keep_first(self, count: int) -> None:
    """Keep only the first `count` examples."""
    self._count = count

  def __len__(self) -> int:
    return self._count

  @property
  def listing(self) -> str:
    """Hash of the examples, see `Source`."""
    return hash_listing([self.whole_listing, len(self)])

  @property
  @abc.abstractmethod
  def whole_listing(self) -> str:
    """Hash of all examples, including those that `keep_first` dropped."""

  @abc.abstractmethod
  def read(self, index: int) -> StoredImage:
    """Read an example as stored.

    Raises:
      BadExampleError: The example cannot be read.
    """

  @abc.abstractmethod
  def where(self, index: int) -> str:
    """Name the place of an example, for messages."""

  def labels(self) -> Iterator[StoredLabel]:
    """Yield the labels of all examples in order, without decoding an image.

    Examples that cannot be read are skipped.
    """
    for index in range(len(self)):
      with contextlib.suppress(BadExampleError):
        _, label, first = self.read(index)
        yield StoredLabel(index, label, first)

  def class_of(self, stored: StoredLabel) -> int:
    """Compute the class, from 0, of a stored label.

    Raises:
      UsageError: The label is outside the classes. Such an example is never
        skipped, because all other labels are probably wrong, too.
    """
    example, label, first = stored
    if self.label_offset is not None:
      first = self.label_offset
    if not 0 <= label - first < self.num_classes:
      raise UsageError(
        f"{self.where(example)}: label {label} is outside the "
        f"{self.num_classes} classes, whose labels are {first} to "
        f"{first + self.num_classes - 1}{self._cure(label, first)}"
      )
    return label - first

  def _cure(self, label: int, first: int) -> str:
    if label == 0 and first == 1:
      return "; labels seem to start at 0: give --data.label-offset 0"
    if label == -1:
      return "; -1 marks images without a label: use a split that has labels"
    if self.class_names is not None:
      return ""
    cure = "; --data.num-classes sets the number of classes"
    if label == self.num_classes and first == 0:
      cure += ", or labels seem to start at 1: give --data.label-offset 1"
    return cure

  def checked(self, index: int) -> tuple[bytes, int]:
    """Read the file and the class, from 0, of an example.

    Raises:
      BadExampleError: The example cannot be read.
      UsageError: The label is outside the classes.
    """
    file, label, first = self.read(index)
    return file, self.class_of(StoredLabel(index, label, first))

  def __getitem__(self, index: int) -> Example:
    file, label = self.checked(index)
    return {"image": file, "label": label}


def read_file(path: str | Path, offset: int = 0, length: int = -1) -> bytes:
  """Open a file and read a part of it.

  Args:
    path: Local path, or a `upath.UPath` of a file in remote storage.
    offset: Offset of the first byte.
    length: Number of bytes; negative reads up to the end.

  Raises:
    BadExampleError: The file is missing, cannot be read or ends too early.

  >>> from upath import UPath
  >>> UPath("memory://letters").write_bytes(b"abcdef")
  6
  >>> read_file(UPath("memory://letters"), 2, 3)
  b'cde'
  """
  read = _read_local if isinstance(path, str | os.PathLike) else _read_remote
  data = read(path, offset, length)
  if length > len(data):
    raise BadExampleError(
      f"the file ends {length - len(data)} bytes before the record"
    )
  return data


def _read_local(path: str | Path, offset: int, length: int) -> bytes:
  try:
    # Without O_NONBLOCK, opening a named pipe would wait for a writer.
    with open(path, "rb", buffering=0, opener=_open_at_once) as file:
      if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise BadExampleError("not a regular file")
      # A damaged length must not allocate memory beyond the file's size.
      left = os.fstat(file.fileno()).st_size - offset
      wanted = left if length < 0 else min(length, left)
      file.seek(offset)
      data = file.read(max(wanted, 0))
      # One call may return less, over a network or above 2 GB.
      while len(data) < wanted and (more := file.read(wanted - len(data))):
        data += more
  except OSError as error:
    raise BadExampleError(read_error(error)) from None
  return data


def _open_at_once(path: str, flags: int) -> int:
  return os.open(path, flags | os.O_NONBLOCK)


def _read_remote(path: Any, offset: int, length: int) -> bytes:
  if length == 0:
    return b""
  end = None if length < 0 else offset + length
  try:
    return path.fs.cat_file(path.path, start=offset, end=end)
  except Exception as error:  # storage clients have errors of their own
    raise BadExampleError(read_error(error)) from None


def read_error(error: Exception) -> str:
  """Describe in one line why a local or remote file cannot be read.

  >>> read_error(FileNotFoundError("/bucket/file"))
  'cannot be read: No such file or directory'
  """
  if isinstance(error, FileNotFoundError):
    reason = os.strerror(errno.ENOENT)
  elif isinstance(error, OSError) and error.strerror:
    reason = error.strerror
  else:
    reason = one_line(error) or type(error).__name__
  return f"cannot be read: {reason}"
