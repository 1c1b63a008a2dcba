"""Decoding of JPEG files, or the reason why one cannot be decoded."""

import functools
from collections.abc import Callable

import numpy as np

from ...errors import one_line
from ..source import BadExampleError
from .jpeg_repair import repair_header, without_bytes_before_end
from .jpeg_rows import HeightField, find_height_field

_START = b"\xff\xd8"
_CMYK_COLOURSPACES = ("CMYK", "YCCK")
# libjpeg's warning between segments, and where rows are left unread.
_UNREAD = "extraneous bytes before marker"
_CURE = "; without strict-jpeg podscale ignores such bytes"


def is_jpeg(data: bytes) -> bool:
  """Test if a file begins as a JPEG does."""
  # simplejpeg.is_jpeg would require the right end of the file, too.
  return data.startswith(_START)


class Jpeg:
  """A JPEG file whose size is known before it is decoded.

  libjpeg guesses values that it cannot read, and warns. This class refuses a
  file with a warning, unless `jpeg_repair` can repair it.

  Args:
    data: Bytes of the file.
    strict: True to refuse files that can be repaired, too.
    verified: True if the file was decoded whole before and is unchanged. Only
      then may a part be decoded, because damage below the part stays unseen.

  Attributes:
    height: Number of rows, in pixels.
    width: Number of columns, in pixels.

  Raises:
    BadExampleError: The header cannot be read.
  """

  def __init__(
    self, data: bytes, *, strict: bool = False, verified: bool = False
  ):
    import simplejpeg  # late, because training on arrays needs no decoder

    self._strict = strict
    self._data = data if strict else repair_header(data)
    try:
      header = simplejpeg.decode_jpeg_header(self._data)
    except (ValueError, KeyError) as error:
      cure = _CURE if strict and _UNREAD in str(error) else ""
      raise BadExampleError(
        f"cannot read the JPEG's header: {one_line(error)}{cure}"
      ) from None
    self.height, self.width, colours, _ = header
    self._is_cmyk = colours in _CMYK_COLOURSPACES
    self._height_field = find_height_field(self._data) if verified else None

  def decode(self, reduction: int = 1) -> np.ndarray:
    """Decode all pixels.

    Args:
      reduction: Factor that divides height and width, rounded up: 1, 2, 4
        or 8. libjpeg averages pixels, which takes less time.

    Returns:
      Pixels, uint8 [ceil(height / reduction), ceil(width / reduction), 3].

    Raises:
      BadExampleError: The file is truncated or damaged.
    """
    data = self._data
    while True:
      try:
        return self._decode(data, reduction)
      except ValueError as error:
        # Another warning may have followed, so the repaired file is decoded.
        repaired = without_bytes_before_end(data, str(error))
        if repaired is None:
          raise _not_decoded(error) from None
        if self._strict:
          raise _not_decoded(error, _CURE) from None
        data = repaired

  def decode_down_to(self, rows: int, reduction: int = 1) -> np.ndarray:
    """Decode at least the first rows; all rows if the file is not `verified`.

    Args:
      rows: Number of the file's rows that are needed.
      reduction: Factor that divides height and width, see `decode`.

    Returns:
      Pixels, uint8 [at least ceil(rows / reduction), ceil(width / reduction),
      3].

    Raises:
      BadExampleError: The file is truncated or damaged.
    """
    if self._height_field:
      # One more row, because colours are interpolated with the row below.
      height = self._height_field.rounded_up(rows + reduction)
      if height < self.height:
        return self._decode_rows(self._height_field, height, reduction)
    return self.decode(reduction)

  def _decode_rows(
    self, field: HeightField, height: int, reduction: int
  ) -> np.ndarray:
    """Decode the first rows, a whole number of units."""
    shape = height // reduction, -(-self.width // reduction)
    pixels = np.empty((*shape, 4 if self._is_cmyk else 3), np.uint8)
    decode = self._decoder(
      field.replaced(self._data, height), height, reduction
    )
    try:
      decode(buffer=pixels)
    except ValueError as error:
      if _UNREAD not in str(error):
        raise _not_decoded(error) from None
    return _cmyk_to_rgb(pixels) if self._is_cmyk else pixels

  def _decode(self, data: bytes, reduction: int) -> np.ndarray:
    pixels = self._decoder(data, self.height, reduction)()
    return _cmyk_to_rgb(pixels) if self._is_cmyk else pixels

  def _decoder(
    self, data: bytes | bytearray, height: int, reduction: int
  ) -> Callable[..., np.ndarray]:
    import simplejpeg

    return functools.partial(
      simplejpeg.decode_jpeg,
      data,
      "CMYK" if self._is_cmyk else "RGB",
      min_height=-(-height // reduction),
      min_width=-(-self.width // reduction),
      min_factor=reduction,
    )


def _not_decoded(error: Exception, cure: str = "") -> BadExampleError:
  return BadExampleError(f"cannot decode the JPEG: {one_line(error)}{cure}")


def _cmyk_to_rgb(pixels: np.ndarray) -> np.ndarray:
  """Convert inverted CMYK, as JPEGs store it, to red, green and blue.

  The arithmetic is OpenCV's.

  Args:
    pixels: Inks, uint8 [h, w, 4]; 255 is no ink.

  Returns:
    Pixels, uint8 [h, w, 3].
  """
  black = pixels[..., 3:].astype(np.uint16)
  return (black - ((255 - pixels[..., :3]) * black >> 8)).astype(np.uint8)
