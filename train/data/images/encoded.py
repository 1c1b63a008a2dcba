"""What all data sets of image files have in common."""

import abc
from collections.abc import Sequence

from ...errors import UsageError
from ..source import (
  IMAGENET_MEAN,
  IMAGENET_STD,
  BadExampleError,
  Example,
  hash_listing,
)


class EncodedImages(abc.ABC):
  """A `Source` of image files as they are, decoded by who takes them.

  Args:
    count: How many there are.
    num_classes: Labels are below it.
    class_names: By label, where they are known.
  """

  mean = IMAGENET_MEAN
  std = IMAGENET_STD
  # That of the paper-era EfficientNet (tensorflow/tpu, preprocessing.py).
  eval_padding = 32

  def __init__(
    self,
    count: int,
    num_classes: int,
    class_names: Sequence[str] | None = None,
  ):
    self._count = count
    self.num_classes = num_classes
    self.class_names = None if class_names is None else tuple(class_names)

  def keep_first(self, count: int) -> None:
    """Leave out all but the first so many examples."""
    self._count = count

  def __len__(self) -> int:
    return self._count

  @property
  def listing(self) -> str:
    """Hash which examples there are, see `Source`."""
    return hash_listing([self.whole_listing, len(self)])

  @property
  @abc.abstractmethod
  def whole_listing(self) -> str:
    """Hash the examples' files, those that `keep_first` leaves out too."""

  @abc.abstractmethod
  def read(self, index: int) -> tuple[bytes, int]:
    """The file and the label; BadExampleError where there are none."""

  @abc.abstractmethod
  def where(self, index: int) -> str:
    """Where an example comes from, for messages."""

  def checked(self, index: int) -> tuple[bytes, int]:
    """As `read`, and BadExampleError where the label is of no class."""
    data, label = self.read(index)
    if not 0 <= label < self.num_classes:
      raise BadExampleError(
        f"label {label} is not one of the {self.num_classes} classes "
        f"0 to {self.num_classes - 1}"
      )
    return data, label

  def __getitem__(self, index: int) -> Example:
    data, label = self.checked(index)
    return {"image": data, "label": label}


def read_file(path: str, offset: int = 0, length: int = -1) -> bytes:
  """A part of a file, opened for each: a data set has more than may be open.

  Raises:
    UsageError: it cannot be read.
    BadExampleError: it ends before.
  """
  try:
    with open(path, "rb", buffering=0) as file:
      file.seek(offset)
      data = file.read(length)
      # One call may give less, over a network and above 2 GB.
      while 0 < len(data) < length and (more := file.read(length - len(data))):
        data += more
  except OSError as error:
    raise UsageError(f"{path}: {error.strerror}") from None
  if length > len(data):
    raise BadExampleError(
      f"the file ends {length - len(data)} bytes before the record does"
    )
  return data
