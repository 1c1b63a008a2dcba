"""TFRecord files, read by index and written."""

import mmap
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...errors import UsageError
from ...tfrecord import FOOTER, HEADER, checksum, frame
from ..source import BadExampleError
from .encoded import read_file
from .example_proto import read_image
from .sharded import ShardedImages


class TFRecordImages(ShardedImages):
  """The records of TFRecord shards, as `example_proto.read_image` reads them.

  Opening finds where each record begins, from the lengths alone: seconds for
  ImageNet on a local disk, longer over a network, where ArrayRecord is better.
  """

  def __init__(self, shards: Sequence[Path], num_classes: int):
    """Find the records.

    Raises:
      UsageError: a shard cannot be read, is empty or damaged.
    """
    self._offsets = [_record_offsets(shard) for shard in shards]
    super().__init__(shards, [len(o) for o in self._offsets], num_classes)

  def read_record(self, shard: int, record: int) -> tuple[bytes, int]:
    """The file and the label of a record whose checksum is right."""
    offset = self._offsets[shard][record]
    return read_image(_read_record(self.shards[shard], offset))


def write_tfrecord(path: Path, records: Iterable[bytes]) -> None:
  """Write records to a file."""
  with path.open("wb") as file:
    for record in records:
      file.write(frame(record))


def _record_offsets(shard: Path) -> array:
  """Where each record of a file begins."""
  offsets = array("Q")
  try:
    size = shard.stat().st_size
    if size == 0:
      raise UsageError(f"{shard}: the shard is empty")
    with (
      shard.open("rb") as file,
      mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
      at = 0
      while at < size:
        offsets.append(at)
        if at + HEADER.size > size:
          break  # what is left is no record; reading it says so
        length, stored = HEADER.unpack_from(data, at)
        if stored != checksum(data[at : at + 8]):
          raise UsageError(
            f"{shard}, record {len(offsets) - 1}: the length's checksum is "
            "wrong, so no later record can be found; is it a TFRecord file?"
          )
        at += HEADER.size + length + FOOTER.size
  except OSError as error:
    raise UsageError(f"{shard}: {error.strerror}") from None
  return offsets


def _read_record(shard: str, offset: int) -> bytes:
  length, _ = HEADER.unpack(read_file(shard, offset, HEADER.size))
  body = read_file(shard, offset + HEADER.size, length + FOOTER.size)
  record = body[:length]
  if FOOTER.unpack_from(body, length)[0] != checksum(record):
    raise BadExampleError("the record's checksum is wrong")
  return record
