"""Decoding of the first rows of a JPEG only.

The rows of a JPEG come in order. With a lower height in its header, a decoder
stops there, and the rows above keep their pixels.
"""

import struct
from typing import NamedTuple

from .jpeg_segments import BASELINE, Segment, header_segments

_FRAME = struct.Struct(">BHHB")  # bits, height, width, components
_COMPONENT = 3  # bytes: its name, its sampling, its table
_BLOCK = 8
_MOST_SAMPLING = 4


class HeightField(NamedTuple):
  """The height field in the header of a JPEG.

  Attributes:
    offset: Offset of the field's two bytes in the file.
    height: Number of rows, in pixels.
    unit: Number of rows that are coded together.
  """

  offset: int
  height: int
  unit: int

  def rounded_up(self, rows: int) -> int:
    """Round a number of rows up to whole units, at most the height.

    >>> field = HeightField(offset=0, height=375, unit=16)
    >>> field.rounded_up(100), field.rounded_up(370)
    (112, 375)
    """
    return min(-(-rows // self.unit) * self.unit, self.height)

  def replaced(self, jpeg: bytes, height: int) -> bytearray:
    """Copy the file with another height in its header."""
    data = bytearray(jpeg)
    struct.pack_into(">H", data, self.offset, height)
    return data


def find_height_field(jpeg: bytes) -> HeightField | None:
  """Find the height field of a JPEG.

  Args:
    jpeg: Any bytes.

  Returns:
    The field; None if the first rows cannot be decoded alone: the image is
    coded in several passes, the header is damaged, or the bytes are no JPEG.
  """
  found = header_segments(jpeg)
  frames = [segment for segment in found if segment.marker in BASELINE]
  return _height_field(jpeg, frames[0], found[-1]) if len(frames) == 1 else None


def _height_field(
  jpeg: bytes, frame: Segment, scan: Segment
) -> HeightField | None:
  first = frame.body + _FRAME.size
  if first > frame.end or scan.body == scan.end:
    return None
  _, height, _, components = _FRAME.unpack_from(jpeg, frame.body)
  samplings = [
    sampling & 15 for sampling in jpeg[first + 1 : frame.end : _COMPONENT]
  ]
  whole = len(samplings) == components and height > 0
  if not whole or not all(1 <= down <= _MOST_SAMPLING for down in samplings):
    return None
  if jpeg[scan.body] != components:  # another scan follows, with the same rows
    return None
  # A single component is coded block by block, whatever its sampling factor.
  down = max(samplings) if components > 1 else 1
  return HeightField(frame.body + 1, height, _BLOCK * down)
