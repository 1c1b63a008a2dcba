"""Parquet shards as Hugging Face datasets writes them."""

import bisect
import contextlib
import functools
import itertools
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ....errors import UsageError, one_line
from ...file_formats import PARQUET, wrong_format
from ...source import BadExampleError
from .encoded import StoredImage, StoredLabel, read_error
from .sharded import ShardedImages, open_shard

if TYPE_CHECKING:
  import pyarrow as pa
  import pyarrow.parquet as pq

_IMAGE, _LABEL = "image", "label"
_LARGEST_GROUP = 2**30  # bytes
_MOST_KEPT = 2**28  # bytes of row groups in memory, but at least one group
_MOST_AT_ONCE = 4  # row groups that threads read at the same time
_UNLABELLED = -1


class ParquetImages(ShardedImages):
  """The rows of Parquet shards with the columns "image" and "label".

  An image is a struct whose field "bytes" is the image file, or these bytes
  alone; a label is an integer. Class names come from the shards' Hugging Face
  schema, if there is one.

  Opening reads the footers only. A row is read with its row group, often 100
  rows, and the latest groups stay in memory. That is fast in order and slow in
  random order, so convert data to train on.
  """

  def __init__(
    self,
    shards: Sequence[Path],
    num_classes: int,
    *,
    label_offset: int | None = None,
  ):
    """Read the footers.

    Raises:
      UsageError: pyarrow is missing; a shard cannot be read, is empty, damaged
        or lacks these columns; or shards have different class names.
    """
    self._footers = [_read_footer(shard) for shard in shards]
    names = self._footers[0].class_names
    for shard, footer in zip(shards, self._footers, strict=True):
      if footer.class_names != names:
        raise UsageError(
          f"{shard}: has other class names than {shards[0]}; use shards of one "
          "data set"
        )
    super().__init__(
      shards,
      [footer.starts[-1] for footer in self._footers],
      len(names) if names else num_classes,
      names,
      label_offset=label_offset,
    )
    largest = max(footer.largest_group for footer in self._footers)
    recent = functools.lru_cache(max(1, _MOST_KEPT // largest))
    self._recent_group = recent(self._read_group)
    # Threads that need the same row group wait for the first of them.
    self._locks = [threading.Lock() for _ in range(_MOST_AT_ONCE)]

  def read_record(self, shard: int, record: int) -> StoredImage:
    """Read the file and the label of a row."""
    footer = self._footers[shard]
    group = bisect.bisect_right(footer.starts, record) - 1
    with self._locks[group % _MOST_AT_ONCE]:
      table = self._recent_group(shard, group)
    row = record - footer.starts[group]
    file, label = (table[c][row].as_py() for c in (footer.image, _LABEL))
    if file is None:
      raise BadExampleError("the row has no image")
    return StoredImage(file, _UNLABELLED if label is None else label)

  def labels(self) -> Iterator[StoredLabel]:
    """Yield the labels in order; this reads the column of labels only."""
    for shard, footer in enumerate(self._footers):
      for group, start in enumerate(footer.starts[:-1]):
        first = self._starts[shard] + start
        with contextlib.suppress(BadExampleError):
          labels = self._read_group(shard, group, _LABEL)[_LABEL].to_pylist()
          for example, label in enumerate(labels, first):
            if example == len(self):
              return
            yield StoredLabel(example, _UNLABELLED if label is None else label)

  def _read_group(self, shard: int, group: int, *columns: str) -> "pa.Table":
    """Read the given columns of a row group, or the image and the label."""
    import pyarrow.parquet as pq

    footer = self._footers[shard]
    try:
      with self.shards[shard].open("rb") as file:
        reader = pq.ParquetFile(
          file, metadata=footer.metadata, page_checksum_verification=True
        )
        table = reader.read_row_group(
          group, columns or (footer.image, _LABEL), use_threads=False
        )
      rows = footer.starts[group + 1] - footer.starts[group]
      if table.num_rows != rows:
        raise ValueError(f"expected {rows} rows, found {table.num_rows}")
      return table.flatten()
    except FileNotFoundError as error:
      raise BadExampleError(read_error(error)) from None
    except Exception as error:  # Arrow and storage clients have own errors
      raise BadExampleError(
        f"row group {group} is damaged: {one_line(error)}"
      ) from None


class _Footer(NamedTuple):
  """The footer of a shard.

  Attributes:
    metadata: Metadata of the file.
    image: Column of the images' bytes.
    starts: First row of each row group, followed by the number of rows.
    largest_group: Largest size of a row group, in bytes, uncompressed.
    class_names: Names by label, if the schema has them.
  """

  metadata: "pq.FileMetaData"
  image: str
  starts: list[int]
  largest_group: int
  class_names: list[str] | None


def _read_footer(shard: Path) -> _Footer:
  try:
    import pyarrow as pa
    import pyarrow.parquet as pq
  except ImportError:
    raise UsageError(
      f"{shard}: Parquet files need pip install 'podscale[parquet]'"
    ) from None
  with open_shard(shard) as file:
    if file.read(len(PARQUET)) != PARQUET:
      raise wrong_format(shard, "a Parquet file")
    file.seek(0)
    try:
      metadata = pq.read_metadata(file)
      schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError, ValueError) as error:
      raise UsageError(
        f"{shard}: not a complete Parquet file: {one_line(error)}; copy or "
        "download it again"
      ) from None
  image = _image_column(shard, schema)
  groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
  rows = [group.num_rows for group in groups]
  starts = [0, *itertools.accumulate(rows)]
  if min(rows, default=0) < 0 or starts[-1] != metadata.num_rows:
    raise UsageError(
      f"{shard}: damaged: its row groups have {starts[-1]} rows, its footer "
      f"{metadata.num_rows}; copy or download it again"
    )
  if not starts[-1]:
    raise UsageError(f"{shard}: the shard is empty")
  largest = max(1, *(group.total_byte_size for group in groups))
  if largest > _LARGEST_GROUP:
    raise UsageError(
      f"{shard}: a row group has {largest:,} bytes, more than the "
      f"{_LARGEST_GROUP:,} that podscale reads for one image; write smaller "
      "row groups (row_group_size=100)"
    )
  return _Footer(metadata, image, starts, largest, _class_names(schema))


def _image_column(shard: Path, schema: "pa.Schema") -> str:
  """Find the column of the images' bytes."""
  import pyarrow as pa

  types = dict(zip(schema.names, schema.types, strict=True))
  if not {_IMAGE, _LABEL} <= types.keys():
    raise UsageError(
      f"{shard}: needs the columns {_IMAGE} and {_LABEL}, has "
      f"{', '.join(types) or 'none'}"
    )
  image, label = types[_IMAGE], types[_LABEL]
  if not pa.types.is_integer(label):
    raise UsageError(
      f"{shard}: column {_LABEL} is {label}; labels must be integers"
    )
  column = _IMAGE
  if pa.types.is_struct(image) and image.get_field_index("bytes") >= 0:
    column, image = f"{_IMAGE}.bytes", image.field("bytes").type
  if not (pa.types.is_binary(image) or pa.types.is_large_binary(image)):
    raise UsageError(
      f"{shard}: column {_IMAGE} is {types[_IMAGE]}; it must be the images' "
      "files as binary, or a struct with a binary field bytes"
    )
  return column


def _class_names(schema: "pa.Schema") -> list[str] | None:
  """Read the class names of the Hugging Face schema; None if it has none."""
  try:
    text = (schema.metadata or {})[b"huggingface"]
    names = json.loads(text)["info"]["features"][_LABEL]["names"]
  except (LookupError, TypeError, ValueError, RecursionError):
    return None
  are_names = isinstance(names, list) and all(isinstance(n, str) for n in names)
  return names if are_names and names else None
