"""ArrayRecord files: reading by index, and writing."""

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from array_record.python.array_record_module import (
  ArrayRecordReader,
  ArrayRecordWriter,
)

from ....errors import UsageError, one_line
from ...file_formats import RIEGELI, wrong_format
from ...source import BadExampleError
from .encoded import StoredImage
from .example_proto import read_image
from .sharded import ShardedImages, open_shard

_MOST_OPEN = 256  # a process may often have 1,024 files open
_FOR_READING_ONE = "readahead_buffer_size:0,max_parallelism:0"
# A group is read as a whole, and compression does not shrink JPEG files.
_FOR_WRITING_ONE = "group_size:1,uncompressed"


class ArrayRecordImages(ShardedImages):
  """The images of ArrayRecord shards of `tf.train.Example`.

  The format has checksums of its own, which reading compares.
  """

  def __init__(
    self,
    shards: Sequence[Path],
    num_classes: int,
    class_names: Sequence[str] | None = None,
    whole_listing: str | None = None,
    *,
    label_offset: int | None = None,
  ):
    """Count the records.

    Raises:
      UsageError: A shard cannot be read, is empty or damaged.
    """
    counts = [_count_records(shard) for shard in shards]
    super().__init__(
      shards,
      counts,
      num_classes,
      class_names,
      whole_listing,
      label_offset=label_offset,
    )
    self._reader = functools.lru_cache(_MOST_OPEN)(_open)

  def read_record(self, shard: int, record: int) -> StoredImage:
    """Read the file and the label of a record."""
    try:
      (data,) = self._reader(str(self.shards[shard])).read([record])
    except (OSError, RuntimeError, ValueError, IndexError) as error:
      reason = f"the record is damaged: {one_line(error)}"
      raise BadExampleError(reason) from None
    return read_image(data)


def _count_records(shard: Path) -> int:
  if not isinstance(shard, os.PathLike):
    raise UsageError(
      f"{shard}: podscale reads ArrayRecord shards from local disks only; "
      "mount the bucket or copy them"
    )
  with open_shard(shard) as file:
    if file.read(len(RIEGELI)) != RIEGELI:
      raise wrong_format(shard, "an ArrayRecord")
  try:
    count = _open(str(shard)).num_records()
  except (OSError, RuntimeError, ValueError) as error:
    raise UsageError(
      f"{shard}: not a complete ArrayRecord: {one_line(error)}; copy or "
      "download it again"
    ) from None
  if not count:
    raise UsageError(
      f"{shard}: has no records: it is empty or cut short; copy or download it "
      "again"
    )
  return count


def write_array_record(path: Path, records: Iterable[bytes]) -> int:
  """Write records to a file.

  Returns:
    Number of records.

  Raises:
    UsageError: The file cannot be written.
  """
  with _writing(path):
    writer = ArrayRecordWriter(str(path), _FOR_WRITING_ONE)
  count = 0
  for record in records:
    with _writing(path):
      writer.write(record)
    count += 1
  with _writing(path):
    writer.close()
  return count


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
  try:
    yield
  except RuntimeError as error:
    raise UsageError(f"cannot write {path}: {one_line(error)}") from None


def sha256(path: Path) -> str:
  """Compute a file's SHA-256, in hexadecimal."""
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _open(shard: str) -> ArrayRecordReader:
  return ArrayRecordReader(shard, _FOR_READING_ONE)
