"""What a data set is to the rest of the house: a `Source` of examples."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict

import numpy as np

from ..errors import UsageError

Split = Literal["train", "test"]


class BadExampleError(ValueError):
  """Why one example cannot be used, in one line without its place."""


IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
"""Mean of ImageNet's red, green and blue, 0 to 255."""
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
"""Standard deviation of ImageNet's red, green and blue, 0 to 255."""


class Example(TypedDict):
  """One image and its class."""

  image: np.ndarray | bytes
  """uint8 [h, w, 3], red, green, blue; or an image file as `Picture` takes it,
  which is decoded when it is known how much of it is wanted."""
  label: int
  """In [0, num_classes)."""


@dataclass(frozen=True)
class Decoding:
  """How image files are decoded."""

  strict: bool = False
  """Refuse every JPEG that libjpeg warns of. Else bytes are accepted that it
  passes over in the header and at the end of the image, as Pillow and
  TensorFlow accept them."""
  exif_rotation: bool = False
  """Rotate images as their EXIF orientation says; TensorFlow does not."""
  verified: bool = False
  """The files were decoded whole before, as strictly as `strict` asks, and a
  checksum is compared when one is read. A JPEG is then decoded down to the last
  row that is needed; others are decoded whole, for damage below that row is not
  seen."""


class Source(Protocol):
  """Random access to the examples of one split.

  `source[i]` for i in [0, len(source)) returns the same `Example` each time, of
  any height and width; it is called from several threads at once, and raises
  `BadExampleError` for what cannot be used. Whatever can be read by index fits:
  arrays, files in folders, ArrayRecord.
  """

  num_classes: int
  class_names: tuple[str, ...] | None
  mean: tuple[float, float, float]
  """To subtract from each channel on the device, in 0 to 255."""
  std: tuple[float, float, float]
  """To divide each channel by on the device, in 0 to 255."""
  description: str
  """The format and the place, for people."""
  left_out: tuple[str, ...]
  """Files beside the images that are not used, for people."""
  eval_padding: int
  """Evaluation at size s cuts the central s / (s + eval_padding) of the short
  side; 0 keeps the whole of a square image."""
  decoding: Decoding
  """How to decode the files."""

  @property
  def listing(self) -> str:
    """A hash of which examples there are, and in which order.

    It is equal for the same data in another folder, and for what it was
    converted to.
    """

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Example: ...

  def where(self, index: int, /) -> str:
    """Where an example comes from, for messages: its file and record."""


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
  """Check that labels mean the same in both splits.

  Raises:
    UsageError: the numbers of classes differ, or their names do.
  """
  if train.num_classes != test.num_classes:
    raise UsageError(
      f"the training images have {train.num_classes} classes, the test images "
      f"{test.num_classes} ({train.description}; {test.description}); both "
      "splits must be of one data set, and where shards do not say their "
      "number of classes num-classes does"
    )
  names = zip(train.class_names or (), test.class_names or (), strict=False)
  for label, (one, other) in enumerate(names):
    if one != other:
      raise UsageError(
        f"class {label} is {one!r} in the training images and {other!r} in the "
        f"test images ({train.description}; {test.description}); both splits "
        "must have the same classes in one order"
      )


def describe(train: Source, test: Source) -> list[str]:
  """Say in three lines what a run trains and evaluates on.

  >>> from podscale.train.data import Synthetic
  >>> for line in describe(Synthetic(64, 8), Synthetic(16, 8)):
  ...   print(line)
  train: 64 images of 10 classes: made-up images
  test: 16 images of 10 classes: made-up images
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
  """How many of the `available` examples to use; None wants all of them.

  Raises:
    UsageError: more are wanted than there are.

  >>> example_count(None, 10_000, "the package"), example_count(3, 10, "x")
  (10000, 3)
  """
  if wanted is None:
    return available
  if wanted > available:
    raise UsageError(
      f"--data.train-examples is {wanted}, but {where} has only {available} "
      "training images; None takes all"
    )
  return wanted
