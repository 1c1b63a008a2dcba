"""Framing of TFRecord files, which TensorBoard uses too.

A record consists of its length (uint64), the length's checksum, its bytes and
their checksum, all little-endian. A checksum is a CRC-32C, rotated, plus a
constant (tensorflow/core/lib/io/record_writer.h).
"""

import struct

import google_crc32c

HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")


def frame(record: bytes) -> bytes:
  """Add length and checksums to a record.

  >>> len(frame(b"seven b")) - 7
  16
  """
  length = struct.pack("<Q", len(record))
  return b"".join(
    [length, FOOTER.pack(checksum(length)), record]
    + [FOOTER.pack(checksum(record))]
  )


def checksum(data: bytes) -> int:
  """Compute the checksum of a record or of its length."""
  crc = google_crc32c.value(data)
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
