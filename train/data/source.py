"""The interface of every data set: a `Source` of examples."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict

import numpy as np

from ..errors import UsageError

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


class BadExampleError(ValueError):
  """An example that cannot be used: the reason, without its place."""


IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
"""Mean of ImageNet's red, green and blue, 0 to 255."""
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
"""Standard deviation of ImageNet's red, green and blue, 0 to 255."""


class Example(TypedDict):
  """One image and its class."""

  image: np.ndarray | bytes
  """Red, green and blue, uint8 [h, w, 3]; or the bytes of an image file, which
  `Picture` decodes in part once the crop is known."""
  label: int
  """Class in [0, num_classes)."""


@dataclass(frozen=True)
class Decoding:
  """Options for decoding image files."""

  strict: bool = False
  """True to refuse every JPEG that libjpeg warns about. False accepts bytes
  that libjpeg ignores in the header and at the end of the image, as Pillow and
  TensorFlow do."""
  exif_rotation: bool = False
  """True to rotate images by their EXIF orientation; TensorFlow does not."""
  verified: bool = False
  """True if the files were decoded whole before, with the same `strict`, and
  reading compares checksums. Only then is a JPEG decoded down to the last row
  that is needed, because damage below that row stays unseen."""


class Source(Protocol):
  """Random access to the examples of one split.

  `source[i]` for i in [0, len(source)) returns the same `Example` each time, of
  any height and width. Several threads call it at once. It raises
  `BadExampleError` for an example that cannot be used. All data that can be
  read by index fits: arrays, files in folders, ArrayRecord.
  """

  num_classes: int
  class_names: tuple[str, ...] | None
  mean: tuple[float, float, float]
  """Mean of each channel, 0 to 255; the device subtracts it."""
  std: tuple[float, float, float]
  """Standard deviation of each channel, 0 to 255; the device divides by it."""
  description: str
  """Format and place, for people."""
  left_out: tuple[str, ...]
  """Ignored files beside the images, for people."""
  eval_padding: int
  """Evaluation at size s cuts the central s / (s + eval_padding) of the short
  side; 0 keeps the whole of a square image."""
  decoding: Decoding
  """Options for decoding the files."""

  @property
  def listing(self) -> str:
    """Hash of the examples and their order.

    It stays equal when the data moves to another folder or is converted.
    """

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Example: ...

  def where(self, index: int, /) -> str:
    """Name the place of an example, for messages: its file and record."""


def hash_listing(lines: Iterable[object]) -> str:
  """Hash the names and counts that identify a data set.

  >>> hash_listing(["train-00000-of-00001", 5])[:8]
  '1cface6a'
  """
  digest = hashlib.sha256()
  for line in lines:
    digest.update(f"{line}\n".encode(errors="surrogateescape"))
  return digest.hexdigest()


def check_same_classes(train: Source, test: Source) -> None:
  """Check that both splits have the same classes.

  Raises:
    UsageError: The numbers of classes differ, or their names do.
  """
  if train.num_classes != test.num_classes:
    raise UsageError(
      f"the training images have {train.num_classes} classes, the test images "
      f"{test.num_classes} ({train.description}; {test.description}); use "
      "splits of one data set, or give --data.num-classes for shards that do "
      "not record their number of classes"
    )
  names = zip(train.class_names or (), test.class_names or (), strict=False)
  for label, (one, other) in enumerate(names):
    if one != other:
      raise UsageError(
        f"class {label} is {one!r} in the training images and {other!r} in the "
        f"test images ({train.description}; {test.description}); both splits "
        "must have the same classes in the same order"
      )


def describe(train: Source, test: Source) -> list[str]:
  """Describe the data of a run in three lines.

  >>> from podscale.train.data import Synthetic
  >>> for line in describe(Synthetic(64, 8), Synthetic(16, 8)):
  ...   print(line)
  train: 64 images of 10 classes: synthetic images
  test: 16 images of 10 classes: synthetic images
  left out: nothing
  """
  lines = [
    f"{split}: {len(source):,} images of {source.num_classes:,} classes: "
    f"{source.description}"
    for split, source in (("train", train), ("test", test))
  ]
  left_out = dict.fromkeys((*train.left_out, *test.left_out))
  return [*lines, f"left out: {'; '.join(left_out) or 'nothing'}"]


def example_count(wanted: int | None, available: int, where: object) -> int:
  """Compute the number of examples to use; `wanted` None takes all.

  Raises:
    UsageError: `wanted` exceeds `available`.

  >>> example_count(None, 10_000, "the package"), example_count(3, 10, "x")
  (10000, 3)
  """
  if wanted is None:
    return available
  if wanted > available:
    raise UsageError(
      f"--data.train-examples is {wanted}, but {where} has only {available} "
      "training images; give None to use all"
    )
  return wanted
