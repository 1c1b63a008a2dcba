"""The framing of TFRecord files, which TensorBoard's are too.

A record is its length (uint64), the length's checksum, its bytes and their
checksum, all little-endian; a checksum is a CRC-32C, rotated and with a
constant added (tensorflow/core/lib/io/record_writer.h).
"""

import struct

import google_crc32c

HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")


def frame(record: bytes) -> bytes:
  """Frame a record for a file.

  >>> len(frame(b"seven b")) - 7
  16
  """
  length = struct.pack("<Q", len(record))
  return b"".join(
    [length, FOOTER.pack(checksum(length)), record]
    + [FOOTER.pack(checksum(record))]
  )


def checksum(data: bytes) -> int:
  """Compute the checksum of a record or its length, as files store it."""
  crc = google_crc32c.value(data)
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
