"""TFRecord files: reading by index, and writing."""

import contextlib
import itertools
import mmap
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ....errors import UsageError
from ....records.tfrecord import FOOTER, HEADER, checksum, frame
from ...file_formats import wrong_format
from ...source import BadExampleError
from .encoded import StoredImage, StoredLabel, read_file
from .example_proto import read_image, read_label
from .sharded import ShardedImages, open_shard

_HEAD, _FOOT = HEADER.size, FOOTER.size
_LENGTH = 8  # bytes of the header that hold the record's length


class TFRecordImages(ShardedImages):
  """The images of TFRecord shards of `tf.train.Example`.

  Opening finds the start of each record from the lengths alone: seconds for
  ImageNet on a local disk. It takes longer over a network; convert such data.
  """

  def __init__(
    self,
    shards: Sequence[Path],
    num_classes: int,
    *,
    label_offset: int | None = None,
  ):
    """Find the records.

    Raises:
      UsageError: A shard cannot be read, is empty, damaged or cut short.
    """
    self._borders = [find_records(shard) for shard in shards]
    super().__init__(
      shards,
      [len(borders) - 1 for borders in self._borders],
      num_classes,
      label_offset=label_offset,
    )

  def read_record(self, shard: int, record: int) -> StoredImage:
    """Read the file and the label of a record, and compare its checksum."""
    start, end = self._borders[shard][record : record + 2]
    framed = read_file(self.shards[shard], start, end - start)
    data, (stored,) = framed[_HEAD:-_FOOT], FOOTER.unpack(framed[-_FOOT:])
    if stored != checksum(data):
      raise BadExampleError("wrong checksum of the record")
    return read_image(data)

  def labels(self) -> Iterator[StoredLabel]:
    """Yield the labels in order; checksums are not compared."""
    example = 0
    for shard, borders in zip(self.shards, self._borders, strict=True):
      for record in _views(shard, borders):
        if example == len(self):
          return
        with contextlib.suppress(BadExampleError):
          yield StoredLabel(example, *read_label(record))
        example += 1


def write_tfrecord(path: Path, records: Iterable[bytes]) -> None:
  """Write records to a file."""
  with path.open("wb") as file:
    for record in records:
      file.write(frame(record))


def find_records(shard: Path) -> array:
  """Find the offset of each record of a file, and the end of the last one.

  Raises:
    UsageError: The file cannot be read, is empty, in another format, damaged or
      cut short. No record behind the damage can be found.
  """
  borders = array("Q", [0])
  with open_shard(shard) as file:
    size = file.seek(0, os.SEEK_END)
    while (at := borders[-1]) < size:
      file.seek(at)
      header = file.read(_HEAD)
      if len(borders) == 1 and not _is_header(header):
        raise wrong_format(shard, "a TFRecord file")
      try:
        borders.append(at + _framed_size(header, size - at))
      except ValueError as error:
        raise UsageError(
          f"{shard}, record {len(borders) - 1}: {error}, so no later record "
          f"can be found in the file's {size:,} bytes; copy or download it "
          "again"
        ) from None
  if not size:
    raise UsageError(f"{shard}: the shard is empty")
  return borders


def _framed_size(header: bytes, left: int) -> int:
  """Compute the size of a record with its frame; `left` bytes remain.

  Raises:
    ValueError: The header is damaged, or the record is cut short.
  """
  if len(header) < _HEAD:
    raise ValueError(f"the last {left} bytes hold no record")
  if not _is_header(header):
    raise ValueError("wrong checksum of the length")
  length, _ = HEADER.unpack(header)
  size = _HEAD + length + _FOOT
  if size > left:
    raise ValueError(
      f"its length is {length:,} bytes, but the file ends {size - left:,} "
      "bytes before the record"
    )
  return size


def _is_header(header: bytes) -> bool:
  return len(header) == _HEAD and HEADER.unpack(header)[1] == checksum(
    header[:_LENGTH]
  )


def _views(shard: Path, borders: array) -> Iterator[memoryview]:
  """Yield the records of a file, as views of mapped memory if it is local."""
  with open_shard(shard) as file:
    data = None
    if isinstance(shard, os.PathLike):
      data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    for start, end in itertools.pairwise(borders):
      if data is None:
        file.seek(start)
        framed = memoryview(file.read(end - start))
      else:
        framed = data[start:end]
      yield framed[_HEAD:-_FOOT]
