"""Reading IDX, the array format of MNIST and its successors."""

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
    path: The file without its `.gz`; the unpacked file is taken if it is there,
      else the packed one.
    shape: Sizes that the array must have; None where any size will do.

  Returns:
    uint8 array of that shape.

  Raises:
    UsageError: the file is missing, truncated, too long or of another shape.
  """
  path, data, whole = _read(path)
  header = 4 + 4 * len(shape)
  if len(data) < header:
    raise UsageError(
      f"{path}: truncated: {len(data)} bytes, the header alone has {header}"
    )
  magic = bytes([0, 0, _UINT8, len(shape)])
  if data[:4] != magic:
    raise UsageError(
      f"{path}: not the IDX file expected: it starts with 0x{data[:4].hex()}, "
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
  """Path taken, its content unpacked, and whether that is all of it."""
  packed = path.with_name(path.name + ".gz")
  try:
    if path.exists():
      return path, path.read_bytes(), True
    path = packed
    # Unlike gzip.decompress, this gives what is left of a cut file.
    stream = zlib.decompressobj(wbits=31)
    return path, stream.decompress(path.read_bytes()), stream.eof
  except FileNotFoundError:
    raise UsageError(f"{path}: no such file, packed or not") from None
  except (OSError, zlib.error) as error:
    raise UsageError(f"{path}: cannot be read: {error}") from None
