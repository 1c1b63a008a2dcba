"""Checksums of PNG files.

libpng compares them too, but reports a difference on the terminal only.
"""

import struct
import zlib

from ..source import BadExampleError

START = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s")
_CHECKSUM = struct.Struct(">I")
_END = b"IEND"


def check_png(data: bytes) -> None:
  """Compare the checksums of all chunks that hold the image.

  Args:
    data: Bytes of a file that begins with `START`.

  Raises:
    BadExampleError: A checksum differs, or the file ends before its last chunk.
  """
  at = len(START)
  kind = b""
  while kind != _END:
    if at + _CHUNK.size > len(data):
      raise BadExampleError(f"the PNG file is truncated at byte {len(data):,}")
    length, kind = _CHUNK.unpack_from(data, at)
    end = at + _CHUNK.size + length
    if end + _CHECKSUM.size > len(data):
      raise BadExampleError(f"the PNG file is truncated at byte {len(data):,}")
    (checksum,) = _CHECKSUM.unpack_from(data, end)
    critical = kind[:1].isupper()
    if critical and zlib.crc32(memoryview(data)[at + 4 : end]) != checksum:
      raise BadExampleError(
        f"the PNG file is damaged: its chunk {kind!r} at byte {at:,} has the "
        "wrong checksum"
      )
    at = end + _CHECKSUM.size
