"""How EXIF says that an image is to be turned."""

import struct
from typing import NamedTuple

import numpy as np

from .jpeg_segments import EXIF, header_segments

Box = tuple[int, int, int, int]
"""Row and column of the first pixel, height and width."""

_EXIF_START = b"Exif\0\0"
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_TAG = 0x0112
_SHORT = 3
_ENTRY = 12  # bytes: tag, type, count and value


class Turn(NamedTuple):
  """Swap rows and columns, then mirror.

  Attributes:
    swap: Whether rows become columns.
    mirror_y: Whether the last row then comes first.
    mirror_x: Whether the last column then comes first.
  """

  swap: bool
  mirror_y: bool
  mirror_x: bool

  def apply(self, pixels: np.ndarray) -> np.ndarray:
    """Turn an image.

    Args:
      pixels: Any dtype, [h, w, c].

    Returns:
      A view, [w, h, c] with `swap`, else [h, w, c].

    >>> rows = np.arange(6).reshape(2, 3, 1)
    >>> TURNS[6].apply(rows)[..., 0].tolist()  # a quarter to the right
    [[3, 0], [4, 1], [5, 2]]
    """
    if self.swap:
      pixels = pixels.transpose(1, 0, 2)
    return pixels[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]

  def undo(self, box: Box, height: int, width: int) -> Box:
    """Find where the pixels of a box are before they are turned.

    Args:
      box: Within the turned image.
      height: Height of the turned image.
      width: Width of the turned image.
    """
    y, x, h, w = box
    if self.mirror_y:
      y = height - y - h
    if self.mirror_x:
      x = width - x - w
    return (x, y, w, h) if self.swap else (y, x, h, w)


TURNS = {
  1: Turn(False, False, False),
  2: Turn(False, False, True),
  3: Turn(False, True, True),
  4: Turn(False, True, False),
  5: Turn(True, False, False),
  6: Turn(True, False, True),
  7: Turn(True, True, True),
  8: Turn(True, True, False),
}
"""By EXIF's orientation (CIPA DC-008, 4.6.4, tag 274)."""


def jpeg_turn(jpeg: bytes) -> Turn:
  """Find how a JPEG's EXIF says that it is to be turned.

  Returns:
    Its turn; none at all where there is no EXIF, or a damaged one.
  """
  for segment in header_segments(jpeg):
    if segment.marker == EXIF:
      body = jpeg[segment.body : segment.end]
      if body.startswith(_EXIF_START):
        return TURNS.get(_orientation(body[len(_EXIF_START) :]), TURNS[1])
  return TURNS[1]


def _orientation(tiff: bytes) -> int:
  """Read the orientation in the first directory of a TIFF file; 0 is none."""
  order = _BYTE_ORDERS.get(tiff[:4])
  if order is None or len(tiff) < 8:
    return 0
  (directory,) = struct.unpack_from(order + "I", tiff, 4)
  if directory + 2 > len(tiff):
    return 0
  (count,) = struct.unpack_from(order + "H", tiff, directory)
  first = directory + 2
  last = min(first + _ENTRY * count, len(tiff) - _ENTRY + 1)
  for at in range(first, last, _ENTRY):
    tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, at)
    if tag == _TAG and kind == _SHORT:
      return value
  return 0
