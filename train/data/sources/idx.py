"""Reader of IDX, the array format of MNIST and its successors."""

import math
import zlib
from pathlib import Path

import numpy as np

from ...errors import UsageError

_UINT8 = 0x08


def read_idx(path: Path, shape: tuple[int | None, ...]) -> np.ndarray:
  """Read a uint8 array from an IDX file.

  The format (http://yann.lecun.com/exdb/mnist): a magic number of four bytes
  0, 0, type, dimensions; each size as a big-endian 32-bit integer; the values.

  Args:
    path: Path of the file without `.gz`; the uncompressed file is preferred to
      the compressed one.
    shape: Expected sizes; None allows any size.

  Returns:
    The array, uint8 of that shape.

  Raises:
    UsageError: The file is missing, truncated, too long or of another shape.
  """
  path, data, whole = _read(path)
  header = 4 + 4 * len(shape)
  if len(data) < header:
    raise UsageError(
      f"{path}: truncated: {len(data)} bytes, but the header alone has "
      f"{header}; download it again"
    )
  magic = bytes([0, 0, _UINT8, len(shape)])
  if data[:4] != magic:
    raise UsageError(
      f"{path}: not the expected IDX file: it starts with 0x{data[:4].hex()}, "
      f"not 0x{magic.hex()}"
    )
  sizes = np.frombuffer(data, ">u4", len(shape), offset=4).tolist()
  if any(
    want not in (None, size) for want, size in zip(shape, sizes, strict=True)
  ):
    expected = [want or "any" for want in shape]
    raise UsageError(f"{path}: expected sizes {expected}, found {sizes}")
  expected_bytes = header + math.prod(sizes)
  if len(data) != expected_bytes or not whole:
    problem = "too long" if len(data) > expected_bytes else "truncated"
    raise UsageError(
      f"{path}: {problem}: expected {expected_bytes} bytes for sizes {sizes}, "
      f"found {len(data)}{'' if whole else ' and no end of the packed data'}"
    )
  return np.frombuffer(data, np.uint8, offset=header).reshape(sizes)


def _read(path: Path) -> tuple[Path, bytes, bool]:
  """Read a file, compressed or not.

  Returns:
    path: Path of the file that was read.
    data: Uncompressed contents.
    whole: True unless the compressed file is cut short.
  """
  packed = path.with_name(path.name + ".gz")
  try:
    if path.exists():
      return path, path.read_bytes(), True
    path = packed
    # Unlike gzip.decompress, this returns the data in front of a cut.
    stream = zlib.decompressobj(wbits=31)
    return path, stream.decompress(path.read_bytes()), stream.eof
  except FileNotFoundError:
    raise UsageError(f"{path}: no such file, compressed or not") from None
  except (OSError, zlib.error) as error:
    raise UsageError(f"{path}: cannot be read: {error}") from None
