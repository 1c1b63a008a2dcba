"""From the bytes of a JPEG or PNG file to the pixels of a part of it."""

import functools
import struct
from collections.abc import Callable

import cv2
import numpy as np

from ..errors import one_line
from .jpeg_rows import Rows, find_rows
from .source import BadExampleError

MOST_PIXELS = 100_000_000
"""A larger image is refused before it is decoded: it would take 300 MB."""

Box = tuple[int, int, int, int]
"""Row and column of the first pixel, height and width."""

_JPEG_START = b"\xff\xd8"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_IHDR = struct.Struct(">8x4x4sII")
# What decoders of all kinds pass over, and some of ImageNet's files have.
_UNREAD = "extraneous bytes before marker"
_HARMLESS = (_UNREAD, "Invalid SOS parameters")


class Picture:
  """An image whose size is known before it is decoded.

  Args:
    image: Pixels, uint8 [h, w, 3], or a JPEG or PNG file.

  Attributes:
    height: In pixels.
    width: In pixels.

  Raises:
    BadExampleError: neither a JPEG nor a PNG file, or over 100 megapixels.

  >>> import simplejpeg
  >>> jpeg = simplejpeg.encode_jpeg(np.zeros((600, 900, 3), np.uint8))
  >>> picture = Picture(jpeg)
  >>> picture.height, picture.width
  (600, 900)
  >>> square = np.empty((224, 224, 3), np.uint8)
  >>> picture.resize((0, 100, 600, 600), square, reduce=True)
  >>> int(square.max())
  0
  """

  def __init__(self, image: np.ndarray | bytes):
    self._image = image
    self._by_turbo = False
    if isinstance(image, np.ndarray):
      self.height, self.width = image.shape[:2]
      return
    if is_jpeg(image):
      self.height, self.width, colours, _ = _jpeg_header(image)
      self._by_turbo = colours not in ("CMYK", "YCCK")
    else:
      self.height, self.width = _png_size(image)
    if self.height * self.width > MOST_PIXELS:
      raise BadExampleError(
        f"{self.width} x {self.height} pixels, more than the {MOST_PIXELS:,} "
        "allowed"
      )

  def resize(self, box: Box, out: np.ndarray, *, reduce: bool) -> None:
    """The pixels in a box, made a square; bicubic, and clipped to 8 bits.

    Without antialiasing, as TensorFlow's, but with half-pixel centres.

    Args:
      box: Within the image.
      out: uint8 [resolution, resolution, 3], is written.
      reduce: Whether a JPEG may be decoded at a half, a quarter or an eighth,
        where the box still has `resolution` pixels each way. Its edges then
        move by up to half of one of those. Without detail finer than that the
        result is the same to a level in the mean; finer detail is averaged,
        where else it would be aliased.

    Raises:
      BadExampleError: see `decode`.
    """
    pixels = self._cut(box, len(out) if reduce else None)
    if pixels.shape == out.shape:
      out[:] = pixels
    else:
      cv2.resize(pixels, out.shape[:2], out, interpolation=cv2.INTER_CUBIC)

  def decode(self, reduction: int = 1) -> np.ndarray:
    """All pixels.

    A file is known by its content, not by its name: ImageNet has a PNG that is
    called .JPEG. Grey, CMYK and 16-bit images become 8 bits of red, green and
    blue; an orientation in EXIF is left alone, as TensorFlow leaves it.

    Args:
      reduction: 1, 2, 4 or 8: decode a JPEG at so much less of its height and
        width, rounded up, which averages and takes less time. Other files, and
        JPEGs in CMYK, are whole.

    Returns:
      uint8 [h, w, 3].

    Raises:
      BadExampleError: truncated or damaged.
    """
    if isinstance(self._image, np.ndarray):
      return self._image
    if not self._by_turbo:
      return _decode_by_opencv(self._image)
    return _decode_by_turbo(self._image, self.height, self.width, reduction)

  def _cut(self, box: Box, least: int | None) -> np.ndarray:
    """The pixels in a box, reduced as far as `least` each way allow."""
    by = _reduction(box, least) if least and self._by_turbo else 1
    y, x, height, width = (round(side / by) for side in box)
    pixels = self._decode_down_to((y + height) * by, by)
    return pixels[y : y + height, x : x + width]

  def _decode_down_to(self, rows: int, reduction: int) -> np.ndarray:
    """At least the first rows, of the whole image, reduced."""
    if isinstance(self._image, bytes) and self._by_turbo:
      found = find_rows(self._image)
      # One more: the colours of some rows are interpolated with those below.
      if found and (height := found.needed(rows + reduction)) < self.height:
        return _decode_rows(self._image, found, height, self.width, reduction)
    return self.decode(reduction)


def _decode_rows(
  jpeg: bytes, rows: Rows, height: int, width: int, reduction: int
) -> np.ndarray:
  """The first rows of a JPEG, a whole number of units."""
  pixels = np.empty((height // reduction, -(-width // reduction), 3), np.uint8)
  decode = _turbo(rows.cut(jpeg, height), height, width, reduction)
  try:
    decode(buffer=pixels)
  except ValueError as error:
    # Only its first complaint is told, and after all rows: where it is of
    # bytes that are not read, those of the rows that follow, nothing was wrong.
    if _UNREAD not in str(error):
      raise _not_decoded(error) from None
  return pixels


def _decode_by_turbo(
  jpeg: bytes, height: int, width: int, reduction: int
) -> np.ndarray:
  decode = _turbo(jpeg, height, width, reduction)
  try:
    return decode()
  except ValueError as error:
    if not any(text in str(error) for text in _HARMLESS):
      raise _not_decoded(error) from None
  return decode(strict=False)


def _turbo(
  jpeg: bytes | bytearray, height: int, width: int, reduction: int
) -> Callable[..., np.ndarray]:
  # Late: machines that train on arrays need no JPEG decoder.
  import simplejpeg

  return functools.partial(
    simplejpeg.decode_jpeg,
    jpeg,
    min_height=-(-height // reduction),
    min_width=-(-width // reduction),
    min_factor=reduction,
  )


def _not_decoded(error: Exception) -> BadExampleError:
  return BadExampleError(f"cannot decode the JPEG: {one_line(error)}")


def _reduction(box: Box, least: int) -> int:
  shortest = min(box[2:])
  return next((by for by in (8, 4, 2) if shortest >= by * least), 1)


def is_jpeg(data: bytes) -> bool:
  """Whether a file begins as a JPEG does."""
  # Not simplejpeg.is_jpeg, which wants the end of the file to be right, too.
  return data.startswith(_JPEG_START)


def _jpeg_header(data: bytes) -> tuple[int, int, str, str]:
  import simplejpeg  # late, as above

  try:
    return simplejpeg.decode_jpeg_header(data)
  except (ValueError, KeyError) as error:
    raise BadExampleError(f"no JPEG header: {one_line(error)}") from None


def _png_size(data: bytes) -> tuple[int, int]:
  if data.startswith(_PNG_START) and len(data) >= _IHDR.size:
    kind, width, height = _IHDR.unpack_from(data)
    if kind == b"IHDR" and width and height:
      return height, width
  raise BadExampleError("neither a JPEG nor a whole PNG file")


def _decode_by_opencv(data: bytes) -> np.ndarray:
  flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
  try:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
  except cv2.error as error:
    raise BadExampleError(
      f"cannot decode the image: {one_line(error)}"
    ) from None
  if image is None:
    raise BadExampleError("neither a JPEG nor a whole PNG file")
  return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
