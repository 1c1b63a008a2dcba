"""A JPEG that ends where its rows are no longer needed.

The rows of a JPEG come in order, so with a lower height in its header it is
decoded down to there and no further; each row above is as it was.
"""

import struct
from typing import NamedTuple

from .jpeg_segments import BASELINE, Segment, header_segments

_FRAME = struct.Struct(">BHHB")  # bits, height, width, components
_COMPONENT = 3  # bytes: its name, its sampling, its table
_BLOCK = 8
_MOST_SAMPLING = 4


class HeightField(NamedTuple):
  """Where the height of a JPEG is written, and what it counts in.

  Attributes:
    offset: Place of the two bytes in the file.
    height: Number of rows, in pixels.
    unit: HeightField that are coded together.
  """

  offset: int
  height: int
  unit: int

  def needed(self, rows: int) -> int:
    """Return the height to write where the first `rows` are needed.

    >>> HeightField(0, 375, 16).needed(100), HeightField(0, 375, 16).needed(370)
    (112, 375)
    """
    return min(-(-rows // self.unit) * self.unit, self.height)

  def cut(self, jpeg: bytes, height: int) -> bytearray:
    """Return the file with another height."""
    data = bytearray(jpeg)
    struct.pack_into(">H", data, self.offset, height)
    return data


def find_height_field(jpeg: bytes) -> HeightField | None:
  """Find where a JPEG's height is written.

  Args:
    jpeg: Any bytes; nothing is raised for those that are no JPEG.

  Returns:
    The place; None where the rows cannot be cut: in a file whose image is coded
    in several passes, and in one whose header is damaged.
  """
  found = header_segments(jpeg)
  frames = [segment for segment in found if segment.marker in BASELINE]
  return _rows(jpeg, frames[0], found[-1]) if len(frames) == 1 else None


def _rows(jpeg: bytes, frame: Segment, scan: Segment) -> HeightField | None:
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
  # A single component is coded block by block, whatever its sampling says.
  down = max(samplings) if components > 1 else 1
  return HeightField(frame.body + 1, height, _BLOCK * down)
