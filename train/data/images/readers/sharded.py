"""The base class of sources whose shards hold many records each."""

import abc
import bisect
import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from ....errors import UsageError
from ...source import BadExampleError, hash_listing
from .encoded import EncodedImages, StoredImage, read_error


class ShardedImages(EncodedImages):
  """A `Source` of the records of all shards, one shard after the other.

  Args:
    shards: Paths of the shards.
    counts: Number of records in each shard.
    num_classes: Number of classes.
    class_names: Names by label, if known.
    whole_listing: Listing of the data that was converted to these shards; None
      hashes the shards' names and counts.
    label_offset: Label of the first class, see `EncodedImages`.
  """

  def __init__(
    self,
    shards: Sequence[Path],
    counts: Sequence[int],
    num_classes: int,
    class_names: Sequence[str] | None = None,
    whole_listing: str | None = None,
    *,
    label_offset: int | None = None,
  ):
    super().__init__(
      sum(counts), num_classes, class_names, label_offset=label_offset
    )
    self._whole_listing = whole_listing
    self.shards = list(shards)
    self.counts = list(counts)
    self._starts = [0, *itertools.accumulate(counts)]

  @abc.abstractmethod
  def read_record(self, shard: int, record: int) -> StoredImage:
    """Read a record of a shard, both by number."""

  @property
  def whole_listing(self) -> str:
    """Hash of the shards' names and counts, or of the data before conversion.

    A given label offset is part of the hash, because it decides the classes.
    """
    if self._whole_listing:
      return self._whole_listing
    names = [shard.name for shard in self.shards]
    offset = [] if self.label_offset is None else [f"from {self.label_offset}"]
    return hash_listing([*names, *self.counts, *offset])

  def read(self, index: int) -> StoredImage:
    """Read the file and the label of an example."""
    return self.read_record(*self._place(index))

  def where(self, index: int) -> str:
    """Name the shard, and the record by its number from 0."""
    shard, record = self._place(index)
    return f"{self.shards[shard]}, record {record}"

  def _place(self, index: int) -> tuple[int, int]:
    shard = bisect.bisect_right(self._starts, index) - 1
    return shard, index - self._starts[shard]


@contextlib.contextmanager
def open_shard(shard: Path) -> Iterator[BinaryIO]:
  """Open a local or remote file for reading.

  Raises:
    UsageError: The file cannot be opened, or the body of the `with` statement
      cannot read it.
  """
  try:
    with shard.open("rb") as file:
      yield cast(BinaryIO, file)
  except (UsageError, BadExampleError):
    raise
  except Exception as error:
    # Storage clients have errors of their own; a local file has only OSError.
    if isinstance(shard, os.PathLike) and not isinstance(error, OSError):
      raise
    raise UsageError(f"{shard}: {read_error(error)}") from None
