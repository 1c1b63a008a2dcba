"""The operations of AutoAugment and RandAugment on one image.

OpenCV and NumPy reimplement the operations of TensorFlow's EfficientNet
(tensorflow/tpu, models/official/efficientnet/autoaugment.py). Every result
equals TensorFlow 1.15 on a CPU bit for bit: the code rounds float32 where
TensorFlow does, and nowhere else. Only Rotate has exceptions, two of them, both
measured:

- At fractional levels, the cosine or the sine of one level in 75 differs by one
  unit in the last place.
- TensorFlow may rewrite its graph before it runs it, which moves the centre by
  up to 0.000016 pixels: 41 of 21,906,336 values changed, at levels 0 to 30 on
  photographs of 224 and 260 pixels.

`device_augment` computes the same results on the device.
"""

import math
from collections.abc import Callable, Iterator, Sequence
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
"""Names of the operations, in the order of TensorFlow's RandAugment."""

FILL = 128
"""Level of the pixels outside the image, and of Cutout's square."""

LARGEST = 2048
"""Largest side of an image, in pixels: OpenCV's coordinates are int16."""

GREY_WEIGHTS = np.array([0.2989, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in a grey level."""

SMOOTHING = np.array([1, 5], np.float32) / np.float32(13)
"""Weights of a neighbour and of the pixel itself in Sharpness."""

_LEVELS = np.arange(256, dtype=np.uint8)
_GREY_PRODUCTS = GREY_WEIGHTS[:, None] * (_LEVELS * np.float32(1 / 255))
# float32 values in a band of rows: 120 kB, because the C library may map fresh
# pages for arrays from 128 KiB on.
_BAND = 30_000
_BELOW_HALF = np.nextafter(np.float32(0.5), np.float32(0))


class Op(NamedTuple):
  """One operation with its strength.

  Attributes:
    name: One of `OPS`.
    value: Degrees (Rotate), slope (ShearX, ShearY), pixels (TranslateX,
      TranslateY), bits kept (Posterize; 0, 9 and more keep one bit, as 1 does),
      threshold modulo 256 (Solarize; 256 inverts everything, as 0 does), level
      to add (SolarizeAdd), half of the side in pixels (Cutout) or the factor
      of the blend, where 1 changes nothing (Color, Contrast, Brightness,
      Sharpness); 0 for the others.
    y: Centre of Cutout as a share of the height, in [0, 1); 0 for the others.
    x: Centre of Cutout as a share of the width, in [0, 1); 0 for the others.
  """

  name: str
  value: float
  y: float
  x: float


def apply_op(image: np.ndarray, op: Op) -> np.ndarray:
  """Apply one operation.

  Args:
    image: Pixels, uint8 [h, w, 3], neither side over `LARGEST`; unchanged.
    op: Operation and its strength.

  Returns:
    Pixels, uint8 [h, w, 3], a new array.

  Raises:
    ValueError: The image is too large.

  >>> image = np.array([[[0, 100, 200]]], np.uint8)
  >>> apply_op(image, Op("Solarize", 128, 0, 0)).tolist()
  [[[0, 100, 55]]]
  """
  if max(image.shape) > LARGEST:
    raise ValueError(
      f"image has the shape {image.shape}, but a side has at most {LARGEST} "
      "pixels; lower the resolution"
    )
  return _FUNCTIONS[op.name](image, op)


def rotation(degrees: float) -> tuple[np.float32, np.float32]:
  """Compute the cosine and the sine of an angle as TensorFlow rounds them.

  >>> rotation(90)[1].item()
  1.0
  """
  radians = float(np.float32(degrees) * np.float32(math.pi / 180))
  return np.float32(math.cos(radians)), np.float32(math.sin(radians))


def _auto_contrast(image: np.ndarray, op: Op) -> np.ndarray:
  # One axis at a time is faster in NumPy.
  low, high = image.min(axis=0).min(axis=0), image.max(axis=0).max(axis=0)
  flat = low == high
  low, high = np.where(flat, 0, low), np.where(flat, 255, high)
  # float32 and this order, because in TensorFlow too `high` may become 254.
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
  # TensorFlow casts 8 - bits to uint8, so that -1 becomes 255, and shifts by at
  # most 7 bits.
  shift = min((8 - int(op.value)) % 256, 7)
  return image & np.uint8(255 >> shift << shift)


def _solarize(image: np.ndarray, op: Op) -> np.ndarray:
  # TensorFlow casts the threshold to uint8, so that 256 becomes 0. An exclusive
  # or with 255 inverts a level, several times as fast as np.where.
  return image ^ (np.uint8(255) * (image >= int(op.value) % 256))


def _solarize_add(image: np.ndarray, op: Op) -> np.ndarray:
  added = (_LEVELS + np.int64(op.value)).clip(0, 255)
  table = np.where(_LEVELS < 128, added, _LEVELS)
  return cv2.LUT(image, table.astype(np.uint8))


def _color(image: np.ndarray, op: Op) -> np.ndarray:
  red, green, blue = map(cv2.LUT, cv2.split(image), _GREY_PRODUCTS)
  # tf.image.rgb_to_grayscale of uint8 multiplies by 255.5.
  grey = ((red + green + blue) * np.float32(255.5)).astype(np.uint8)
  return _blend(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), image, op.value)


def _contrast(image: np.ndarray, op: Op) -> np.ndarray:
  # TensorFlow's "mean" sums the histogram's counts, not the intensities: it is
  # the number of pixels over 256, clipped to 255 for all but tiny images.
  mean = np.uint8(min(image.shape[0] * image.shape[1] // 256, 255))
  return cv2.LUT(image, _blend(mean, _LEVELS, op.value))


def _brightness(image: np.ndarray, op: Op) -> np.ndarray:
  return cv2.LUT(image, _blend(np.uint8(0), _LEVELS, op.value))


def _sharpness(image: np.ndarray, op: Op) -> np.ndarray:
  h, w = image.shape[:2]
  smooth = image.copy()
  if min(h, w) > 2:
    wide = image.astype(np.float32)
    neighbour, centre = wide * SMOOTHING[0], wide[1:-1, 1:-1] * SMOOTHING[1]
    inner = np.zeros_like(centre)
    # The order matters, because each sum is rounded.
    for y in range(3):
      for x in range(3):
        beside = neighbour[y : y + h - 2, x : x + w - 2]
        cv2.add(inner, centre if y == x == 1 else beside, inner)
    smooth[1:-1, 1:-1] = inner
  return _blend(smooth, image, op.value)


def _in_bands(
  function: Callable[[np.ndarray, Op], np.ndarray], margin: int
) -> Callable[[np.ndarray, Op], np.ndarray]:
  """Make a function of whole images from a function of a few rows.

  The float32 values of a few rows stay in cache.

  Args:
    function: Function from rows of an image to rows of the result.
    margin: Rows above and below that a row's result depends on.

  Returns:
    Function from a whole image to a whole result.
  """

  def banded(image: np.ndarray, op: Op) -> np.ndarray:
    out = np.empty_like(image)
    for first, end in _bands(len(image), image[0].size):
      above = min(first, margin)
      rows = function(image[first - above : end + margin], op)
      out[first:end] = rows[above : above + end - first]
    return out

  return banded


def _bands(rows: int, values: int) -> Iterator[tuple[int, int]]:
  """Yield the first row and the end of each band of rows.

  Args:
    rows: Rows of the image.
    values: float32 values of each row.
  """
  step = max(_BAND // values, 1)
  for first in range(0, rows, step):
    yield first, min(first + step, rows)


def _blend(
  a: np.ndarray | np.uint8, b: np.ndarray, factor: float
) -> np.ndarray:
  """Compute `a + factor * (b - a)`, clipped and truncated to whole levels."""
  mixed = np.subtract(b, a, dtype=np.float32)
  mixed *= np.float32(factor)
  mixed += a
  return mixed.clip(0, 255, out=mixed).astype(np.uint8)


def _rotate(image: np.ndarray, op: Op) -> np.ndarray:
  right, down = np.float32(image.shape[1] - 1), np.float32(len(image) - 1)
  cos, sin = rotation(op.value)
  # The offsets keep the centre in place.
  offset_x = (right - (cos * right - sin * down)) / 2
  offset_y = (down - (sin * right + cos * down)) / 2
  return _transform(image, (cos, -sin, offset_x), (sin, cos, offset_y))


def _shear_x(image: np.ndarray, op: Op) -> np.ndarray:
  return _transform(image, (1, op.value, 0), (0, 1, 0))


def _shear_y(image: np.ndarray, op: Op) -> np.ndarray:
  return _transform(image, (1, 0, 0), (op.value, 1, 0))


def _translate_x(image: np.ndarray, op: Op) -> np.ndarray:
  return _transform(image, (1, 0, op.value), (0, 1, 0))


def _translate_y(image: np.ndarray, op: Op) -> np.ndarray:
  return _transform(image, (1, 0, 0), (0, 1, op.value))


def _transform(
  image: np.ndarray,
  to_x: Sequence[float | np.float32],
  to_y: Sequence[float | np.float32],
) -> np.ndarray:
  """Warp an image: pixel (x, y) comes from (`to_x`, `to_y`) . (x, y, 1).

  The nearest pixel is taken; halves round away from zero. Pixels from outside
  the image are `FILL`.
  """
  out = np.empty(image.shape, np.uint8)
  x = np.arange(image.shape[1], dtype=np.float32)
  for first, end in _bands(*image.shape[:2]):
    y = np.arange(first, end, dtype=np.float32)[:, None]
    places = np.empty((2, end - first, len(x)), np.float32)
    for place, row in zip(places, (to_x, to_y), strict=True):
      by_x, by_y, offset = map(np.float32, row)
      # If a factor is 0, one row or column broadcasts to all.
      exact = (by_x * x if by_x else 0) + (by_y * y if by_y else 0) + offset
      # Halves round away from zero, -1/2 to -1. Adding 1/2 itself would round
      # the largest number below 1/2 up to 1.
      np.floor(exact + _BELOW_HALF, out=place)
    cv2.remap(
      image,
      places[0],
      places[1],
      cv2.INTER_NEAREST,
      out[first:end],
      cv2.BORDER_CONSTANT,
      (FILL, FILL, FILL),
    )
  return out


def _cutout(image: np.ndarray, op: Op) -> np.ndarray:
  h, w = image.shape[:2]
  half = int(op.value)
  # float32 as on the device, where a share near 1 rounds to 1.
  y = min(int(np.float32(op.y) * np.float32(h)), h - 1)
  x = min(int(np.float32(op.x) * np.float32(w)), w - 1)
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
  "Color": _in_bands(_color, margin=0),
  "Contrast": _contrast,
  "Brightness": _brightness,
  "Sharpness": _in_bands(_sharpness, margin=1),
  "ShearX": _shear_x,
  "ShearY": _shear_y,
  "TranslateX": _translate_x,
  "TranslateY": _translate_y,
  "Cutout": _cutout,
  "SolarizeAdd": _solarize_add,
}
