"""AutoAugment and RandAugment: the choice of operations for an image.

The caller draws the random numbers, so the same numbers give the same
operations. Tables and strengths come from TensorFlow's EfficientNet
(tensorflow/tpu, models/official/efficientnet/autoaugment.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ...errors import UsageError
from .image_ops import OPS, Op, apply_op


class Policy(Protocol):
  """A policy that chooses the operations for an image."""

  @property
  def numbers(self) -> int:
    """Count of random numbers in [0, 1) for each image; a multiple of 4."""

  @property
  def layers(self) -> int:
    """Largest number of operations for an image."""

  def draw(self, numbers: Sequence[float]) -> list[Op]:
    """Choose the operations for one image.

    Args:
      numbers: Random numbers in [0, 1), as many as the property `numbers`.

    Returns:
      At most `layers` operations, in order.
    """


@dataclass(frozen=True)
class AutoAugment:
  """Policy "v0": one of 25 pairs of operations, each applied or not.

  Cubuk et al. 2019, "AutoAugment: learning augmentation strategies from data".

  >>> policy = AutoAugment()
  >>> [op.name for op in policy.draw([0.1] * policy.numbers)]
  ['Color', 'Rotate']
  """

  numbers = 8
  layers = 2

  def draw(self, numbers: Sequence[float]) -> list[Op]:
    """Choose the operations for one image, see `Policy.draw`.

    The first number picks the pair. Each operation of the pair then takes two
    numbers: one decides if it is applied, the other if it is negated.
    """
    pair = _V0[int(numbers[0] * len(_V0))]
    draws = (numbers[1:3], numbers[3:5])
    return [
      Op(name, _strength(name, level, _V0_TRANSLATION, negated), 0.0, 0.0)
      for (name, probability, level), (applied, negated) in zip(
        pair, draws, strict=True
      )
      if applied < probability
    ]


@dataclass(frozen=True)
class RandAugment:
  """A policy of `layers` random operations, all of one magnitude.

  Cubuk et al. 2020, "RandAugment: practical automated data augmentation with a
  reduced search space".

  Attributes:
    layers: Operations on each image, at least 1.
    magnitude: Strength in [0, 100]; 10 is the strongest of AutoAugment.

  Raises:
    UsageError: An attribute is out of range.

  >>> policy = RandAugment(layers=2, magnitude=5)
  >>> [(op.name, op.value) for op in policy.draw([0.2] * 4 + [0.9] * 4)]
  [('Rotate', -15.0), ('Cutout', 20)]
  """

  layers: int
  magnitude: float

  def __post_init__(self):
    if self.layers < 1:
      raise UsageError(f"RandAugment needs at least 1 layer, got {self.layers}")
    if not 0 <= self.magnitude <= 100:
      raise UsageError(
        f"RandAugment's magnitude must be in [0, 100], got {self.magnitude}"
      )

  @property
  def numbers(self) -> int:
    """Count of random numbers for each image: four for each layer."""
    return 4 * self.layers

  def draw(self, numbers: Sequence[float]) -> list[Op]:
    """Choose the operations for one image, see `Policy.draw`.

    Each operation takes four numbers: its name, its sign, and the y and x of
    Cutout's centre.
    """
    return [
      self._op(*numbers[4 * layer : 4 * layer + 4])
      for layer in range(self.layers)
    ]

  def _op(self, which: float, negated: float, y: float, x: float) -> Op:
    name = OPS[int(which * len(OPS))]
    if name != "Cutout":
      y = x = 0.0
    return Op(
      name, _strength(name, self.magnitude, _RAND_TRANSLATION, negated), y, x
    )


def apply_ops(image: np.ndarray, ops: Iterable[Op]) -> np.ndarray:
  """Apply operations one after the other.

  Args:
    image: Pixels, uint8 [h, w, 3]; unchanged.
    ops: Operations.

  Returns:
    Pixels, uint8 [h, w, 3]; `image` itself without operations.

  >>> image = np.array([[[0, 100, 200]]], np.uint8)
  >>> ops = [Op("Invert", 0, 0, 0), Op("Posterize", 1, 0, 0)]
  >>> apply_ops(image, ops).tolist()
  [[[128, 128, 0]]]
  """
  for op in ops:
    image = apply_op(image, op)
  return image


def _strength(
  name: str, level: float, translation: int, negated: float
) -> float:
  """Compute `Op.value` at a level; 10 is full strength."""
  share = level / 10
  sign = -1 if negated < 0.5 else 1
  match name:
    case "Rotate":
      return sign * share * 30
    case "ShearX" | "ShearY":
      return sign * share * 0.3
    case "TranslateX" | "TranslateY":
      return sign * share * translation
    case "Posterize":
      return int(share * 4)
    case "Solarize":
      return int(share * 256)
    case "SolarizeAdd":
      return int(share * 110)
    case "Color" | "Contrast" | "Brightness" | "Sharpness":
      return share * 1.8 + 0.1
    case "Cutout":
      return int(share * 40)
    case _:
      return 0.0


# Pixels of a full translation.
_V0_TRANSLATION = 250
_RAND_TRANSLATION = 100

# Name, probability and level of the operations of each pair.
_V0 = (
  (("Equalize", 0.8, 1), ("ShearY", 0.8, 4)),
  (("Color", 0.4, 9), ("Equalize", 0.6, 3)),
  (("Color", 0.4, 1), ("Rotate", 0.6, 8)),
  (("Solarize", 0.8, 3), ("Equalize", 0.4, 7)),
  (("Solarize", 0.4, 2), ("Solarize", 0.6, 2)),
  (("Color", 0.2, 0), ("Equalize", 0.8, 8)),
  (("Equalize", 0.4, 8), ("SolarizeAdd", 0.8, 3)),
  (("ShearX", 0.2, 9), ("Rotate", 0.6, 8)),
  (("Color", 0.6, 1), ("Equalize", 1.0, 2)),
  (("Invert", 0.4, 9), ("Rotate", 0.6, 0)),
  (("Equalize", 1.0, 9), ("ShearY", 0.6, 3)),
  (("Color", 0.4, 7), ("Equalize", 0.6, 0)),
  (("Posterize", 0.4, 6), ("AutoContrast", 0.4, 7)),
  (("Solarize", 0.6, 8), ("Color", 0.6, 9)),
  (("Solarize", 0.2, 4), ("Rotate", 0.8, 9)),
  (("Rotate", 1.0, 7), ("TranslateY", 0.8, 9)),
  (("ShearX", 0.0, 0), ("Solarize", 0.8, 4)),
  (("ShearY", 0.8, 0), ("Color", 0.6, 4)),
  (("Color", 1.0, 0), ("Rotate", 0.6, 2)),
  (("Equalize", 0.8, 4), ("Equalize", 0.0, 8)),
  (("Equalize", 1.0, 4), ("AutoContrast", 0.6, 2)),
  (("ShearY", 0.4, 7), ("SolarizeAdd", 0.6, 7)),
  (("Posterize", 0.8, 2), ("Solarize", 0.6, 10)),
  (("Solarize", 0.6, 8), ("Equalize", 0.6, 1)),
  (("Color", 0.8, 6), ("Rotate", 0.4, 5)),
)
