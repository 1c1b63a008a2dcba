"""Decoding of an image file, whole or in part."""

import cv2
import numpy as np

from ...errors import one_line
from ..source import BadExampleError, Decoding
from .image_size import KINDS, read_size
from .jpeg import Jpeg, is_jpeg
from .orientation import ORIENTATIONS, Box, jpeg_orientation
from .png_checksums import START as PNG_START
from .png_checksums import check_png

MOST_PIXELS = 100_000_000
"""Largest image to decode; decoded it takes 300 MB."""

_DEFAULT = Decoding()

# OpenCV would print the error of a damaged file to the terminal, too.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class Picture:
  """An image whose size is known before it is decoded.

  The content decides the format, not the name: ImageNet has a PNG file named
  .JPEG. Grey, CMYK and 16-bit images become 8 bits of red, green and blue. An
  animation gives its first frame. The constructor decodes every format but
  JPEG at once.

  Args:
    image: Pixels, uint8 [h, w, 3], or the bytes of a JPEG, PNG, WebP or BMP
      file.
    decoding: Options for decoding a file.

  Attributes:
    height: Number of rows, in pixels.
    width: Number of columns, in pixels.

  Raises:
    BadExampleError: The bytes are no image file, are damaged, or hold over 100
      megapixels.

  >>> import simplejpeg
  >>> jpeg = simplejpeg.encode_jpeg(np.zeros((600, 900, 3), np.uint8))
  >>> picture = Picture(jpeg)
  >>> picture.height, picture.width
  (600, 900)
  >>> square = np.empty((224, 224, 3), np.uint8)
  >>> picture.resize((0, 100, 600, 600), square)
  >>> int(square.max())
  0
  """

  def __init__(
    self,
    image: np.ndarray | bytes,
    decoding: Decoding = _DEFAULT,
  ):
    self._orientation = ORIENTATIONS[1]
    self._image: np.ndarray | Jpeg
    if isinstance(image, np.ndarray):
      self._image = image
    elif is_jpeg(image):
      self._image = Jpeg(
        image, strict=decoding.strict, verified=decoding.verified
      )
      _check_size(self._image.height, self._image.width)
      if decoding.exif_rotation:
        self._orientation = jpeg_orientation(image)
    else:
      self._image = _decode_by_opencv(image, decoding.exif_rotation)
    self.height, self.width = _size(self._image)
    if self._orientation.swap:
      self.height, self.width = self.width, self.height

  def resize(self, box: Box, out: np.ndarray) -> None:
    """Resize the pixels of a box to a square; bicubic, clipped to 8 bits.

    The cubic is Keys' with a = -0.75, with aligned pixel centres and without
    antialiasing. If the box has at least twice the resolution in both
    directions, a JPEG is decoded at a half, a quarter or an eighth. That
    averages fine detail instead of aliasing it, and moves the edges of the box
    by up to half of a reduced pixel.

    TensorFlow 1's `resize_bicubic` has the same cubic with aligned pixel
    corners. `tf.image.resize` has a = -0.5 and aligned centres.
    docs/how-to/data.md has the distances.

    Args:
      box: Box within the image.
      out: Result to write, uint8 [resolution, resolution, 3].

    Raises:
      BadExampleError: The file is truncated or damaged.
    """
    pixels = self._cut(box, len(out))
    if pixels.shape == out.shape:
      out[:] = pixels
    else:
      cv2.resize(pixels, out.shape[:2], out, interpolation=cv2.INTER_CUBIC)
    if self._orientation != ORIENTATIONS[1]:
      out[:] = self._orientation.apply(out.copy())

  def decode(self, reduction: int = 1) -> np.ndarray:
    """Decode all pixels.

    Args:
      reduction: Factor that divides a JPEG's height and width, rounded up: 1,
        2, 4 or 8. libjpeg averages pixels, which takes less time. Other files
        are decoded whole.

    Returns:
      Pixels, uint8 [h, w, 3].

    Raises:
      BadExampleError: The file is truncated or damaged.
    """
    if isinstance(self._image, np.ndarray):
      return self._image
    return self._orientation.apply(self._image.decode(reduction))

  def _cut(self, box: Box, least: int) -> np.ndarray:
    """Cut out a box as stored, reduced to at least `least` pixels each way."""
    box = self._orientation.undo(box, self.height, self.width)
    if isinstance(self._image, np.ndarray):
      y, x, height, width = box
      return self._image[y : y + height, x : x + width]
    by = _reduction(box, least)
    y, x, height, width = (round(side / by) for side in box)
    pixels = self._image.decode_down_to((y + height) * by, by)
    return pixels[y : y + height, x : x + width]


def _reduction(box: Box, least: int) -> int:
  shortest = min(box[2:])
  return next((by for by in (8, 4, 2) if shortest >= by * least), 1)


def _size(image: np.ndarray | Jpeg) -> tuple[int, int]:
  if isinstance(image, Jpeg):
    return image.height, image.width
  return image.shape[0], image.shape[1]


def _check_size(height: int, width: int) -> None:
  if height * width > MOST_PIXELS:
    raise BadExampleError(
      f"{width} x {height} pixels, more than the {MOST_PIXELS:,} allowed"
    )


def _decode_by_opencv(data: bytes, exif_rotation: bool) -> np.ndarray:
  size = read_size(data)
  _check_size(*size)
  if data.startswith(PNG_START):
    check_png(data)
  flags = cv2.IMREAD_COLOR
  if not exif_rotation:
    flags |= cv2.IMREAD_IGNORE_ORIENTATION
  try:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
  except cv2.error as error:
    raise BadExampleError(
      f"cannot decode the image: {one_line(error)}"
    ) from None
  if image is None:
    raise BadExampleError(f"truncated, damaged, or not a {KINDS} file")
  if image.shape[:2] not in (size, size[::-1]):
    raise BadExampleError(
      f"the header says {size[1]} x {size[0]} pixels, there are "
      f"{image.shape[1]} x {image.shape[0]}"
    )
  return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
