"""Crops, shifts and mirrors of one image.

The caller draws the random numbers, so the same image and numbers give the same
result in any thread, process or order.
"""

import math
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np

from ..decoding.orientation import Box
from ..decoding.picture import Picture

Crop = Literal["resized", "shift", "none"]

_ATTEMPTS = 10
_ASPECTS = (3 / 4, 4 / 3)
_SMALLEST_AREA = 0.08
_LEAST_COVERED = 0.1

NUMBERS = 4 + 4 * _ATTEMPTS
"""Random numbers in [0, 1) for `train_image`: four for the mirror and the
shift, then four for each attempt at a crop."""


def train_image(
  picture: Picture,
  numbers: Sequence[float],
  *,
  resolution: int,
  crop: Crop,
  flip: bool,
  eval_padding: int = 0,
) -> np.ndarray:
  """Crop, resize and mirror one training image.

  - Crop "resized": a random crop of 8 to 100 % of the area and of aspect ratio
    (width over height) 3/4 to 4/3, see `random_crop`.
  - Crop "shift": the crop of evaluation, padded with black by an eighth of the
    resolution on all sides and cut at a random place.
  - Crop "none": the crop of evaluation.

  The steps and their order come from TensorFlow's EfficientNet (tensorflow/tpu,
  models/official/efficientnet/preprocessing.py).

  Args:
    picture: Image; `Picture.resize` resizes it, here and in evaluation.
    numbers: `NUMBERS` floats in [0, 1).
    resolution: Height and width of the result, in pixels.
    crop: "resized", "shift" or "none".
    flip: True to mirror half of the images left to right.
    eval_padding: Padding of `eval_image`, for "shift" and "none" and where no
      attempt at a random crop succeeds.

  Returns:
    Pixels, uint8 [resolution, resolution, 3].

  Raises:
    BadExampleError: The file is damaged.

  >>> picture = Picture(np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
  >>> numbers = [0.9] * NUMBERS
  >>> same = train_image(picture, numbers, resolution=2, crop="none", flip=True)
  >>> same[0].tolist()
  [[0, 1, 2], [3, 4, 5]]
  """
  pixels = np.empty((resolution, resolution, 3), np.uint8)
  box = None
  if crop == "resized":
    box = random_crop(picture.height, picture.width, numbers[4:])
  box = box or _central_box(picture, resolution, eval_padding)
  picture.resize(box, pixels)
  if crop == "shift":
    pixels = _shift(pixels, numbers[1], numbers[2])
  if flip and numbers[0] < 0.5:
    cv2.flip(pixels, 1, pixels)
  return pixels


def eval_image(
  picture: Picture, resolution: int, eval_padding: int
) -> np.ndarray:
  """Cut the central square of an image and resize it.

  The square's side is `resolution / (resolution + eval_padding)` of the short
  side. EfficientNet used a padding of 32 when the paper was written
  (tensorflow/tpu, models/official/efficientnet/preprocessing.py).

  Args:
    picture: Image.
    resolution: Height and width of the result, in pixels.
    eval_padding: Pixels of the result; 0 cuts the largest square.

  Returns:
    Pixels, uint8 [resolution, resolution, 3].

  Raises:
    BadExampleError: The file is damaged.

  >>> eval_image(Picture(np.zeros((40, 50, 3), np.uint8)), 32, 8).shape
  (32, 32, 3)
  """
  pixels = np.empty((resolution, resolution, 3), np.uint8)
  picture.resize(_central_box(picture, resolution, eval_padding), pixels)
  return pixels


def _central_box(picture: Picture, resolution: int, eval_padding: int) -> Box:
  h, w = picture.height, picture.width
  size = max(1, resolution * min(h, w) // (resolution + eval_padding))
  return (h - size + 1) // 2, (w - size + 1) // 2, size, size


def random_crop(h: int, w: int, numbers: Sequence[float]) -> Box | None:
  """Draw a crop as `tf.image.sample_distorted_bounding_box` does.

  The aspect ratio is uniform in [3/4, 4/3]. The height is uniform between the
  height of the smallest area, 8 % of the image, and the largest height that
  fits. A crop of less than 10 % of the area is drawn again, up to 10 times:
  this is TensorFlow's `min_object_covered=0.1` with the whole image as the
  object.

  Unlike TensorFlow's crops, these reach the last row and column.

  Args:
    h: Height of the image, in pixels.
    w: Width of the image, in pixels.
    numbers: Four floats in [0, 1) for each attempt.

  Returns:
    (y, x, height, width); None if every attempt failed or the crop is the whole
    image. The caller then takes the central crop.
  """
  for attempt in range(_ATTEMPTS):
    u_aspect, u_height, u_y, u_x = numbers[4 * attempt : 4 * attempt + 4]
    aspect = _ASPECTS[0] + u_aspect * (_ASPECTS[1] - _ASPECTS[0])
    low = math.sqrt(_SMALLEST_AREA * h * w / aspect)
    high = min(math.sqrt(h * w / aspect), h, w / aspect)
    height = round(low + u_height * (high - low))
    width = round(height * aspect)
    if height > h or width > w or height * width < _LEAST_COVERED * h * w:
      continue
    if (height, width) == (h, w):
      return None
    y, x = int(u_y * (h - height + 1)), int(u_x * (w - width + 1))
    return y, x, height, width
  return None


def _shift(image: np.ndarray, u_y: float, u_x: float) -> np.ndarray:
  size = len(image)
  margin = size // 8
  dy, dx = (int(u * (2 * margin + 1)) - margin for u in (u_y, u_x))
  shifted = np.zeros_like(image)
  shifted[max(dy, 0) : size + min(dy, 0), max(dx, 0) : size + min(dx, 0)] = (
    image[max(-dy, 0) : size - max(dy, 0), max(-dx, 0) : size - max(dx, 0)]
  )
  return shifted
