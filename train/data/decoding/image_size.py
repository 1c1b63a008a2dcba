"""Sizes of PNG, WebP and BMP images, read from their headers."""

import struct

from ..file_formats import describe_format
from ..source import BadExampleError
from .png_checksums import START as PNG_START

KINDS = "JPEG, PNG, WebP or BMP"

_RIFF, _WEBP = b"RIFF", b"WEBP"
_BMP = b"BM"
_OS2_HEADER = 12  # bytes; it has sizes of 16 bits, other headers of 32


def read_size(data: bytes) -> tuple[int, int]:
  """Read the height and width of an image, in pixels.

  Args:
    data: Bytes of a PNG, WebP or BMP file.

  Returns:
    (height, width).

  Raises:
    BadExampleError: The bytes are no such file, or end in its header.
  """
  if data.startswith(PNG_START):
    read = _png_size
  elif data.startswith(_RIFF) and data[8:12] == _WEBP:
    read = _webp_size
  elif data.startswith(_BMP):
    read = _bmp_size
  elif not data:
    raise BadExampleError("the file is empty")
  else:
    found = describe_format(data[:512])
    raise BadExampleError(
      f"not a {KINDS} file: it "
      + (f"is {found}" if found else f"begins with {data[:8]!r}")
    )
  try:
    height, width = read(data)
  except struct.error:
    raise BadExampleError("the image file ends in its header") from None
  if not height or not width:
    raise BadExampleError(f"an image of {width} x {height} pixels")
  return height, width


def _png_size(data: bytes) -> tuple[int, int]:
  kind, width, height = struct.unpack_from(">4sII", data, 12)
  if kind != b"IHDR":
    raise BadExampleError(f"a PNG file that begins with {kind!r}, not b'IHDR'")
  return height, width


def _webp_size(data: bytes) -> tuple[int, int]:
  """Read a WebP's size, see RFC 9649 (2.5 to 2.7) and RFC 6386 (9.1)."""
  chunk = data[12:16]
  if chunk == b"VP8X":
    w, w_high, h, h_high = struct.unpack_from("<HBHB", data, 24)
    return 1 + (h_high << 16 | h), 1 + (w_high << 16 | w)
  if chunk == b"VP8L":
    (bits,) = struct.unpack_from("<I", data, 21)
    return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
  if chunk == b"VP8 ":
    width, height = struct.unpack_from("<HH", data, 26)
    return height & 0x3FFF, width & 0x3FFF
  raise BadExampleError(f"a WebP file that begins with {chunk!r}")


def _bmp_size(data: bytes) -> tuple[int, int]:
  (header,) = struct.unpack_from("<I", data, 14)
  if header == _OS2_HEADER:
    width, height = struct.unpack_from("<HH", data, 18)
  else:
    width, height = struct.unpack_from("<ii", data, 18)
  return abs(height), abs(width)  # a negative height: rows from top to bottom
