"""A JPEG that ends where its rows are no longer needed.

The rows of a JPEG come in order, so with a lower height in its header it is
decoded down to there and no further; each row above is as it was.
"""

import struct
from typing import NamedTuple

_BASELINE = (0xFFC0, 0xFFC1)  # one pass over the image, Huffman-coded
_START_OF_SCAN = 0xFFDA
_FIRST_MARK, _LAST_MARK = 0xFF00, 0xFFFF
_SEGMENT = struct.Struct(">HH")
_FRAME = struct.Struct(">BHHB")  # bits, height, width, components
_BLOCK = 8


class Rows(NamedTuple):
  """Where the height of a JPEG is written, and what it counts in.

  Attributes:
    offset: Of the two bytes in the file.
    height: In pixels.
    unit: Rows that are coded together.
  """

  offset: int
  height: int
  unit: int

  def needed(self, rows: int) -> int:
    """The height to be written where the first `rows` are needed.

    >>> Rows(0, 375, 16).needed(100), Rows(0, 375, 16).needed(370)
    (112, 375)
    """
    return min(-(-rows // self.unit) * self.unit, self.height)

  def cut(self, jpeg: bytes, height: int) -> bytearray:
    """The file with another height."""
    data = bytearray(jpeg)
    struct.pack_into(">H", data, self.offset, height)
    return data


def find_rows(jpeg: bytes) -> Rows | None:
  """Reads a JPEG's header; None where its rows cannot be cut.

  That is: where it is coded in several passes, or its header is not clean, as
  what a decoder says of it is then not about the end of the rows.
  """
  frame = None
  at = 2
  while at + _SEGMENT.size < len(jpeg):
    mark, length = _SEGMENT.unpack_from(jpeg, at)
    if mark in _BASELINE:
      frame = at + _SEGMENT.size
    elif mark == _START_OF_SCAN:
      return _rows(jpeg, frame, jpeg[at + _SEGMENT.size])
    elif not _FIRST_MARK < mark < _LAST_MARK:
      return None
    at += 2 + length
  return None


def _rows(jpeg: bytes, frame: int | None, in_scan: int) -> Rows | None:
  if frame is None:
    return None
  _, height, _, components = _FRAME.unpack_from(jpeg, frame)
  if in_scan != components:  # another scan follows, with the same rows
    return None
  first = frame + _FRAME.size + 1
  samplings = jpeg[first : first + 3 * components : 3]
  down = max((sampling & 15 for sampling in samplings), default=1)
  # A single component is coded block by block, whatever its sampling says.
  return Rows(frame + 1, height, _BLOCK * (down if components > 1 else 1))
