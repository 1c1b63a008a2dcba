"""Synthetic images, for trials without data."""

import numpy as np

from ..source import (
  IMAGENET_MEAN,
  IMAGENET_STD,
  Decoding,
  Example,
  Split,
  hash_listing,
)

_PATTERNS, _TRAIN, _TEST = range(3)
_GRID = 4


class Synthetic:
  """A source of images with a pattern for each class under noise.

  The label of example i is i modulo the number of classes. The splits share the
  patterns but not the noise, so a network that learns one split can classify
  the other.

  Args:
    examples: Number of examples.
    resolution: Height and width of the images, in pixels.
    num_classes: Number of classes.
    split: "train" or "test".

  >>> source = Synthetic(examples=100, resolution=32)
  >>> source[13]["image"].shape, source[13]["label"]
  ((32, 32, 3), 3)
  """

  class_names: tuple[str, ...] | None = None
  mean = IMAGENET_MEAN
  std = IMAGENET_STD
  description = "synthetic images"
  left_out: tuple[str, ...] = ()
  eval_padding = 0
  decoding = Decoding()

  def __init__(
    self,
    examples: int,
    resolution: int,
    *,
    num_classes: int = 10,
    split: Split = "train",
  ):
    self.num_classes = num_classes
    self._examples = examples
    self._resolution = resolution
    self._split = _TRAIN if split == "train" else _TEST
    self.listing = hash_listing(
      ["synthetic", split, examples, resolution, num_classes]
    )

  def __len__(self) -> int:
    return self._examples

  def __getitem__(self, index: int) -> Example:
    if not 0 <= index < self._examples:
      raise IndexError(f"example {index} of {self._examples}")
    label = index % self.num_classes
    size = self._resolution
    cells = np.arange(size) * _GRID // size
    pattern = _bytes(_PATTERNS, label, _GRID)[cells[:, None], cells]
    noise = _bytes(self._split, index, size)
    return {"image": pattern // 2 + noise // 2, "label": label}

  def where(self, index: int) -> str:
    """Name the place of an example: its index."""
    return f"synthetic image {index}"


def _bytes(kind: int, index: int, size: int) -> np.ndarray:
  bits = np.random.Philox(key=[index, kind])
  raw = bits.random_raw(-(-size * size * 3 // 8)).view(np.uint8)
  return raw[: size * size * 3].reshape(size, size, 3)
