"""Recognition of file formats by their first bytes."""

import string
from pathlib import Path

from ..errors import UsageError
from ..records.tfrecord import HEADER, checksum

_HEAD = 512  # the first block of a tar file
_SHOWN = 16

RIEGELI = b"\x83\xaf\x70\xd1\x0d\x88\x4a\x3f"
"""First bytes of an ArrayRecord, whose container format is Riegeli."""

PARQUET = b"PAR1"
"""First bytes of a Parquet file."""

# First bytes, their offset, the format, and the cure.
_FORMATS: tuple[tuple[bytes, int, str, str], ...] = (
  (b"\x1f\x8b", 0, "compressed with gzip", "decompress it first: gunzip"),
  (
    b"\x28\xb5\x2f\xfd",
    0,
    "compressed with zstd",
    "decompress it first: unzstd",
  ),
  (b"BZh", 0, "compressed with bzip2", "decompress it first: bunzip2"),
  (b"\xfd7zXZ\x00", 0, "compressed with xz", "decompress it first: unxz"),
  (b"\x04\x22\x4d\x18", 0, "compressed with lz4", "decompress it first: unlz4"),
  (b"PK\x03\x04", 0, "a zip archive", "unpack it first: unzip"),
  (PARQUET, 0, "a Parquet file", "rename it to end in .parquet"),
  (
    RIEGELI,
    0,
    "an ArrayRecord (Riegeli) file",
    "rename it to have .array_record in its name",
  ),
  (b"ustar", 257, "a tar file", "rename it to end in .tar"),
  (
    b"\xde\xc0\xef\xbe",
    16,
    "an LMDB database",
    "write its records to TFRecord, tar or class folders first",
  ),
  (b"\xff\xd8\xff", 0, "a JPEG file", "put images into class folders"),
  (b"\x89PNG\r\n", 0, "a PNG file", "put images into class folders"),
  (
    b"version https://git-lfs",
    0,
    "a Git LFS pointer, not the file itself",
    "fetch the file: git lfs pull",
  ),
)
_TEXT = frozenset(string.printable.encode())
_PAGES = (b"<!doctype html", b"<html", b"<?xml")


def describe_format(head: bytes) -> str | None:
  """Describe the format of a file by its first bytes, with the cure.

  Args:
    head: First bytes of the file, up to 512.

  Returns:
    "FORMAT; CURE"; None for an unknown format.

  >>> describe_format(b"PAR1 and more")
  'a Parquet file; rename it to end in .parquet'
  """
  for magic, offset, name, cure in _FORMATS:
    if head.startswith(magic, offset):
      return f"{name}; {cure}"
  if _is_tfrecord(head):
    return "a TFRecord file; rename it to have .tfrecord in its name"
  if head.lstrip().lower().startswith(_PAGES):
    return "a web page or an error message; download the file again"
  if head and all(byte in _TEXT for byte in head):
    return f"text that begins with {head[:_SHOWN].decode()!r}"
  return None


def wrong_format(path: Path, expected: str) -> UsageError:
  """Return the error for a file whose format is not that of its name.

  Args:
    path: Local or remote path.
    expected: Expected format with its article, such as "a tar file".
  """
  with path.open("rb") as file:
    head = file.read(_HEAD)
  if not head:
    return UsageError(f"{path}: the file is empty")
  found = describe_format(head)
  if found is None or found.startswith(expected):
    return UsageError(
      f"{path}: damaged at byte 0, or not {expected}: it begins with "
      f"{head[:_SHOWN]!r}"
    )
  return UsageError(f"{path}: not {expected}: it is {found}")


def _is_tfrecord(head: bytes) -> bool:
  if len(head) < HEADER.size:
    return False
  _, stored = HEADER.unpack_from(head)
  return stored == checksum(head[:8])
