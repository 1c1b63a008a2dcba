"""EXIF orientations of images."""

import struct
from typing import NamedTuple

import numpy as np

from .jpeg_segments import EXIF, header_segments

Box = tuple[int, int, int, int]
"""(y, x, height, width) of a rectangle, in pixels."""

_EXIF_START = b"Exif\0\0"
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_TAG = 0x0112
_SHORT = 3
_ENTRY = 12  # bytes: tag, type, count and value


class Orientation(NamedTuple):
  """A swap of rows and columns, followed by mirrors.

  Attributes:
    swap: True if rows become columns.
    mirror_y: True if the last row then comes first.
    mirror_x: True if the last column then comes first.
  """

  swap: bool
  mirror_y: bool
  mirror_x: bool

  def apply(self, pixels: np.ndarray) -> np.ndarray:
    """Swap and mirror an image.

    Args:
      pixels: Image of any dtype, [h, w, c].

    Returns:
      A view, [w, h, c] with `swap`, otherwise [h, w, c].

    >>> rows = np.arange(6).reshape(2, 3, 1)
    >>> ORIENTATIONS[6].apply(rows)[..., 0].tolist()  # a quarter to the right
    [[3, 0], [4, 1], [5, 2]]
    """
    if self.swap:
      pixels = pixels.transpose(1, 0, 2)
    return pixels[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]

  def undo(self, box: Box, height: int, width: int) -> Box:
    """Find the box whose pixels `apply` moves to the given box.

    Args:
      box: Box in the oriented image.
      height: Height of the oriented image.
      width: Width of the oriented image.

    Returns:
      Box in the stored image.
    """
    y, x, h, w = box
    if self.mirror_y:
      y = height - y - h
    if self.mirror_x:
      x = width - x - w
    return (x, y, w, h) if self.swap else (y, x, h, w)


ORIENTATIONS = {
  1: Orientation(False, False, False),
  2: Orientation(False, False, True),
  3: Orientation(False, True, True),
  4: Orientation(False, True, False),
  5: Orientation(True, False, False),
  6: Orientation(True, False, True),
  7: Orientation(True, True, True),
  8: Orientation(True, True, False),
}
"""Orientations by EXIF's number (CIPA DC-008, 4.6.4, tag 274)."""


def jpeg_orientation(jpeg: bytes) -> Orientation:
  """Read the orientation from a JPEG's EXIF segment.

  Returns:
    The orientation; the identity if EXIF is absent or damaged.
  """
  for segment in header_segments(jpeg):
    if segment.marker == EXIF:
      body = jpeg[segment.body : segment.end]
      if body.startswith(_EXIF_START):
        return ORIENTATIONS.get(
          _orientation(body[len(_EXIF_START) :]), ORIENTATIONS[1]
        )
  return ORIENTATIONS[1]


def _orientation(tiff: bytes) -> int:
  """Read the orientation's number from a TIFF's first directory; 0 if none."""
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
