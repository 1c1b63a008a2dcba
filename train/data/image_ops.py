"""The operations of AutoAugment and RandAugment on one image.

They are those of TensorFlow's EfficientNet (tensorflow/tpu,
models/official/efficientnet/autoaugment.py), written anew for OpenCV.
`device_augment` does the same on the device, with the same results.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np

OPS = (
  "AutoContrast",
  "Equalize",
  "Invert",
  "Rotate",
  "Posterize",
  "Solarize",
  "Color",
  "Contrast",
  "Brightness",
  "Sharpness",
  "ShearX",
  "ShearY",
  "TranslateX",
  "TranslateY",
  "Cutout",
  "SolarizeAdd",
)
"""The names of the operations, in the order of TensorFlow's RandAugment."""

FILL = 128
"""What comes in from outside the image, and what Cutout leaves."""

LARGEST = 2048
"""The most pixels a side may have: coordinates are int32 in units of 1/65536,
and their sums stay below 2**31 up to here, with shears of up to 10."""

ONE = 65536
"""One pixel in the units of coordinates."""

SNAP = 2.0**-10
"""Added to a blend before it is cut to a whole number.

A blend that should be a whole number, but for rounding, would often lose a
level, and not the same ones on host and device. For levels with at most one
decimal, factors are multiples of 0.002, so no other blend comes that close to
the next whole number; for others one in a thousand does, and gains a level.
"""


class Op(NamedTuple):
  """One operation with its strength.

  Attributes:
    name: One of `OPS`.
    value: Degrees (Rotate), slope (ShearX, ShearY), pixels (TranslateX,
      TranslateY), bits kept (Posterize), threshold (Solarize), what is added
      (SolarizeAdd), half of the side in pixels (Cutout) or the factor of the
      blend, where 1 changes nothing (Color, Contrast, Brightness, Sharpness);
      0 for the others.
    y: Centre of Cutout as a share of the height, in [0, 1); 0 for the others.
    x: The same as a share of the width.
  """

  name: str
  value: float
  y: float
  x: float


def apply_op(image: np.ndarray, op: Op) -> np.ndarray:
  """Apply one operation.

  Args:
    image: uint8 [h, w, 3], neither side over `LARGEST`; is not written to.
    op: What to do.

  Returns:
    uint8 [h, w, 3], a new array.

  Raises:
    ValueError: the image is too large.

  >>> image = np.array([[[0, 100, 200]]], np.uint8)
  >>> apply_op(image, Op("Solarize", 128, 0, 0)).tolist()
  [[[0, 100, 55]]]
  """
  if max(image.shape) > LARGEST:
    raise ValueError(f"{image.shape}: a side may have {LARGEST} pixels at most")
  return _FUNCTIONS[op.name](image, op)


def fixed(value: float) -> int:
  """A slope or sine in units of 1/65536, for coordinates without rounding.

  >>> fixed(0.5)
  32768
  """
  return round(value * ONE)


def whole_pixels(value: float) -> int:
  """The whole number of pixels nearest to `value`.

  >>> whole_pixels(-10.2)
  -10
  """
  return (fixed(value) + ONE // 2) // ONE


def _auto_contrast(image: np.ndarray, op: Op) -> np.ndarray:
  # NumPy is faster one axis at a time.
  low, high = image.min(axis=0).min(axis=0), image.max(axis=0).max(axis=0)
  flat = low == high
  low, high = np.where(flat, 0, low), np.where(flat, 255, high)
  # In float32 and in this order: as in TensorFlow, `high` may become 254.
  scale = np.float32(255) / (high - low).astype(np.float32)
  levels = np.arange(256, dtype=np.float32)[:, None]
  table = levels * scale - low.astype(np.float32) * scale
  return cv2.LUT(image, table.clip(0, 255).astype(np.uint8)[None])


def _equalize(image: np.ndarray, op: Op) -> np.ndarray:
  tables = [_equalizer(plane) for plane in cv2.split(image)]
  return cv2.LUT(image, np.stack(tables, axis=-1)[None])


def _equalizer(plane: np.ndarray) -> np.ndarray:
  counts = cv2.calcHist([plane], [0], None, [256], [0, 256]).ravel().astype(int)
  step = (plane.size - counts[counts.nonzero()[0][-1]]) // 255
  if step == 0:
    return np.arange(256, dtype=np.uint8)
  below = counts.cumsum() - counts
  return ((below + step // 2) // step).clip(0, 255).astype(np.uint8)


def _invert(image: np.ndarray, op: Op) -> np.ndarray:
  return 255 - image


def _posterize(image: np.ndarray, op: Op) -> np.ndarray:
  return image & np.uint8(256 - (256 >> int(op.value)))


def _solarize(image: np.ndarray, op: Op) -> np.ndarray:
  # An exclusive or with 255 inverts; several times as fast as np.where.
  return image ^ (np.uint8(255) * (image >= int(op.value)))


def _solarize_add(image: np.ndarray, op: Op) -> np.ndarray:
  levels = np.arange(256)
  table = np.where(levels < 128, (levels + int(op.value)).clip(0, 255), levels)
  return cv2.LUT(image, table.astype(np.uint8))


def _color(image: np.ndarray, op: Op) -> np.ndarray:
  # tf.image.rgb_to_grayscale of uint8 multiplies by 255.5 / 255. Exact here, as
  # is float64: no sum is nearer to a whole number than 1 / 5,100,000.
  weights = np.array([[2989, 5870, 1140]]) * (511 / 5_100_000)
  grey = cv2.transform(image.astype(np.float64), weights).astype(np.uint8)
  return _blend(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), image, op.value)


def _contrast(image: np.ndarray, op: Op) -> np.ndarray:
  # TensorFlow's "mean" sums the counts of the histogram, not the intensities:
  # it is the number of pixels over 256, which is 255 for all but tiny images.
  mean = min(image.shape[0] * image.shape[1] // 256, 255)
  return _blend(np.full_like(image, mean), image, op.value)


def _brightness(image: np.ndarray, op: Op) -> np.ndarray:
  return _blend(np.zeros_like(image), image, op.value)


def _sharpness(image: np.ndarray, op: Op) -> np.ndarray:
  # [[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13 is a box and four times the centre.
  # OpenCV rounds; 1/2 - 1/26 less cuts all thirteenths to whole numbers.
  box = cv2.boxFilter(image, cv2.CV_32F, (3, 3), normalize=False)
  cut = 1 / 26 - 1 / 2
  smooth = cv2.addWeighted(box, 1 / 13, image, 4 / 13, cut, dtype=cv2.CV_8U)
  smooth[[0, -1]] = image[[0, -1]]
  smooth[:, [0, -1]] = image[:, [0, -1]]
  return _blend(smooth, image, op.value)


def _blend(a: np.ndarray, b: np.ndarray, factor: float) -> np.ndarray:
  """`a + factor * (b - a)`, cut to a whole number and clipped."""
  # OpenCV rounds to the nearest: 1/2 less cuts.
  return cv2.addWeighted(a, 1 - factor, b, factor, SNAP - 0.5)


def _rotate(image: np.ndarray, op: Op) -> np.ndarray:
  h, w = image.shape[:2]
  radians = math.radians(op.value)
  cos, sin = fixed(math.cos(radians)), fixed(math.sin(radians))
  y, x = np.arange(h, dtype=np.int32)[:, None], np.arange(w, dtype=np.int32)
  # The centre stays where it is.
  offset_x = ((w - 1) * (ONE - cos) + (h - 1) * sin + ONE) // 2
  offset_y = ((h - 1) * (ONE - cos) - (w - 1) * sin + ONE) // 2
  places = np.empty((h, w, 2), np.int16)
  places[..., 0] = ((cos * x + offset_x) - sin * y) >> 16
  places[..., 1] = ((sin * x + offset_y) + cos * y) >> 16
  return cv2.remap(
    image,
    places,
    np.empty(0, np.uint16),  # no fractions
    cv2.INTER_NEAREST,
    borderMode=cv2.BORDER_CONSTANT,
    borderValue=(FILL, FILL, FILL),
  )


def _shear_x(image: np.ndarray, op: Op) -> np.ndarray:
  rows = np.arange(len(image))
  return _slide(image, (fixed(op.value) * rows + ONE // 2) >> 16)


def _shear_y(image: np.ndarray, op: Op) -> np.ndarray:
  # Bands of a few columns are slow to move, so they become rows.
  return cv2.transpose(_shear_x(cv2.transpose(image), op))


def _translate_x(image: np.ndarray, op: Op) -> np.ndarray:
  return _slide(image, np.full(len(image), whole_pixels(op.value)))


def _translate_y(image: np.ndarray, op: Op) -> np.ndarray:
  return _translate_x(image.swapaxes(0, 1), op).swapaxes(0, 1)


def _slide(image: np.ndarray, shifts: np.ndarray) -> np.ndarray:
  """Take pixel x of row y from x + shifts[y], in bands of equal shifts."""
  w = image.shape[1]
  shifts = shifts.clip(-w, w)
  edges = (np.flatnonzero(np.diff(shifts)) + 1).tolist()
  out = np.full_like(image, FILL)
  for first, end in pairwise([0, *edges, len(image)]):
    left, right = max(-int(shifts[first]), 0), max(int(shifts[first]), 0)
    out[first:end, left : w - right] = image[first:end, right : w - left]
  return out


def _cutout(image: np.ndarray, op: Op) -> np.ndarray:
  h, w = image.shape[:2]
  half = int(op.value)
  # In float32, as on the device.
  y = int(np.float32(op.y) * np.float32(h))
  x = int(np.float32(op.x) * np.float32(w))
  out = image.copy()
  out[max(y - half, 0) : y + half, max(x - half, 0) : x + half] = FILL
  return out


_FUNCTIONS = {
  "AutoContrast": _auto_contrast,
  "Equalize": _equalize,
  "Invert": _invert,
  "Rotate": _rotate,
  "Posterize": _posterize,
  "Solarize": _solarize,
  "Color": _color,
  "Contrast": _contrast,
  "Brightness": _brightness,
  "Sharpness": _sharpness,
  "ShearX": _shear_x,
  "ShearY": _shear_y,
  "TranslateX": _translate_x,
  "TranslateY": _translate_y,
  "Cutout": _cutout,
  "SolarizeAdd": _solarize_add,
}
