"""Results of TensorFlow 1.15's image operations on two photographs.

tests/train/data/augment/record_tensorflow.py wrote the record and explains how.
"""

import json
import pathlib
import zlib

import cv2
import numpy as np

from podscale.train.data.augment.image_ops import OPS, Op
from podscale.train.data.augment.policies import RandAugment

FOLDER = pathlib.Path(__file__).parents[1] / "train/data/augment/recorded"
PHOTOGRAPHS = ("china", "flower")
LEVELS = range(31)

RECORD = json.loads((FOLDER / "tensorflow.json").read_text())
CASES = list(RECORD["china"])
"""Names of operations; some with their argument at level 10 and its sign."""


def photograph(name: str) -> np.ndarray:
  """Read one photograph, uint8 [s, s, 3]."""
  image = cv2.imread(str(FOLDER / f"{name}.png"))
  return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def op_of(case: str, level: float) -> Op:
  """Build the operation of a case as the policies do."""
  name, *full = case.split()
  if full and full[0][1:] == "250":  # only AutoAugment has this argument
    return Op(name, level / 10 * float(full[0]), 0.0, 0.0)
  sign = 0.1 if full and full[0][0] == "-" else 0.9
  which = (OPS.index(name) + 0.5) / len(OPS)
  (op,) = RandAugment(1, level).draw([which, sign, 3 / 8, 5 / 8])
  return op


def crc32(image: np.ndarray) -> int:
  """Compute the checksum that the record holds for an image."""
  return zlib.crc32(np.ascontiguousarray(image))
