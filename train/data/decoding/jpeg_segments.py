"""Segments of a JPEG file, found in the way of libjpeg."""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

BASELINE = (0xC0, 0xC1)
"""Markers of frames with one pass over the image, Huffman-coded."""
START_OF_SCAN = 0xDA
END_OF_IMAGE = 0xD9
EXIF = 0xE1

# A segment's marker. Restarts (D0 to D7) and 01 have no length and are skipped
# like the bytes of a scan.
_MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")
_START_OF_IMAGE = 0xD8
_MOST_SEGMENTS = 4096  # the scans and ICC profiles of real files take hundreds


class Segment(NamedTuple):
  """One segment of a file.

  Attributes:
    marker: The second byte of its marker.
    start: Offset of its marker in the file.
    body: Offset of what follows its length.
    end: Offset of the first byte behind it.
  """

  marker: int
  start: int
  body: int
  end: int


def header_segments(jpeg: bytes) -> list[Segment]:
  r"""List the segments of a header, up to the first scan's.

  Bytes between segments are skipped, as libjpeg does.

  Args:
    jpeg: Any bytes.

  Returns:
    The segments; an empty list if the header is damaged.

  >>> scan = b"\xff\xda\0\x08\1\0\0\0\77\0"
  >>> [segment] = header_segments(b"\xff\xd8" + b"extraneous" + scan)
  >>> segment
  Segment(marker=218, start=12, body=16, end=22)
  """
  found = []
  for segment in _segments(jpeg):
    found.append(segment)
    if segment.marker == START_OF_SCAN:
      return found
  return []


def find_end(jpeg: bytes) -> int | None:
  """Find the marker at the end of an image, behind its scans.

  Returns:
    Offset of the marker; None if there is none.
  """
  last = None
  for segment in _segments(jpeg):
    last = segment
  return last.start if last and last.marker == END_OF_IMAGE else None


def _segments(jpeg: bytes) -> Iterator[Segment]:
  """Yield all segments up to the image's end or to the first damage."""
  at = 2
  for _ in range(_MOST_SEGMENTS):
    found = _MARKER.search(jpeg, at)
    if not found or found[1][0] == _START_OF_IMAGE:
      return
    marker, start, after = found[1][0], found.start(), found.end()
    if marker == END_OF_IMAGE:
      yield Segment(marker, start, after, after)
      return
    if after + 2 > len(jpeg):
      return
    (length,) = struct.unpack_from(">H", jpeg, after)
    at = after + length
    if length < 2 or at > len(jpeg):
      return
    yield Segment(marker, start, after + 2, at)
