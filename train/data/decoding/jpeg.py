"""From the bytes of a JPEG file to its pixels, or to a reason why not."""

import functools
from collections.abc import Callable

import numpy as np

from ...errors import one_line
from ..source import BadExampleError
from .jpeg_repair import repair_header, without_bytes_before_end
from .jpeg_rows import HeightField, find_height_field

_START = b"\xff\xd8"
_CMYK_COLOURSPACES = ("CMYK", "YCCK")
# What libjpeg warns of between segments, and where rows are left unread.
_UNREAD = "extraneous bytes before marker"
_CURE = "; without strict-jpeg such bytes are passed over"


def is_jpeg(data: bytes) -> bool:
  """Tell whether a file begins as a JPEG does."""
  # Not simplejpeg.is_jpeg, which wants the end of the file to be right, too.
  return data.startswith(_START)


class Jpeg:
  """A JPEG file whose size is known before it is decoded.

  libjpeg guesses what it cannot read, and warns. A file that it warns of is
  refused, but for what `jpeg_repair` mends.

  Args:
    data: The file.
    strict: Whether to refuse what can be mended as well.
    verified: Whether the file was decoded whole before and is unchanged. Only
      then is it decoded in part, for damage below the part is not seen.

  Attributes:
    height: Number of rows, in pixels.
    width: Number of columns, in pixels.

  Raises:
    BadExampleError: the header cannot be read.
  """

  def __init__(
    self, data: bytes, *, strict: bool = False, verified: bool = False
  ):
    import simplejpeg  # Late: machines that train on arrays need no decoder.

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
    self._rows = find_height_field(self._data) if verified else None

  def decode(self, reduction: int = 1) -> np.ndarray:
    """Decode all pixels.

    Args:
      reduction: 1, 2, 4 or 8: how much less of the height and width to decode,
        rounded up. That averages, and takes less time.

    Returns:
      uint8 [ceil(height / reduction), ceil(width / reduction), 3].

    Raises:
      BadExampleError: truncated or damaged.
    """
    data = self._data
    while True:
      try:
        return self._decode(data, reduction)
      except ValueError as error:
        # Another warning may have followed, so what is mended is decoded again.
        mended = without_bytes_before_end(data, str(error))
        if mended is None:
          raise _not_decoded(error) from None
        if self._strict:
          raise _not_decoded(error, _CURE) from None
        data = mended

  def decode_down_to(self, rows: int, reduction: int = 1) -> np.ndarray:
    """Decode at least the first rows, all where the file is not `verified`.

    Args:
      rows: How many of the file's rows are needed.
      reduction: As in `decode`.

    Raises:
      BadExampleError: see `decode`.
    """
    if self._rows:
      # One more: the colours of some rows are interpolated with those below.
      height = self._rows.needed(rows + reduction)
      if height < self.height:
        return self._decode_rows(self._rows, height, reduction)
    return self.decode(reduction)

  def _decode_rows(
    self, rows: HeightField, height: int, reduction: int
  ) -> np.ndarray:
    """Decode the first rows, a whole number of units."""
    shape = height // reduction, -(-self.width // reduction)
    pixels = np.empty((*shape, 4 if self._is_cmyk else 3), np.uint8)
    decode = self._decoder(rows.cut(self._data, height), height, reduction)
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

  Args:
    pixels: uint8 [h, w, 4], 255 where there is no ink.

  Returns:
    uint8 [h, w, 3], as OpenCV computes it.
  """
  black = pixels[..., 3:].astype(np.uint16)
  return (black - ((255 - pixels[..., :3]) * black >> 8)).astype(np.uint8)
