"""Images in several files of many records each."""

import abc
import bisect
import itertools
from collections.abc import Sequence
from pathlib import Path

from ..source import hash_listing
from .encoded import EncodedImages


class ShardedImages(EncodedImages):
  """A `Source` over the records of all shards, one after the other.

  Args:
    shards: The files.
    counts: Records in each.
    num_classes: Labels are below it.
    class_names: By label, where they are known.
    whole_listing: Listing of the data that was converted to these shards; None
      hashes the shards' names and counts.
  """

  def __init__(
    self,
    shards: Sequence[Path],
    counts: Sequence[int],
    num_classes: int,
    class_names: Sequence[str] | None = None,
    whole_listing: str | None = None,
  ):
    super().__init__(sum(counts), num_classes, class_names)
    self._whole_listing = whole_listing
    self.shards = [str(shard) for shard in shards]
    self.counts = list(counts)
    self._starts = [0, *itertools.accumulate(counts)]

  @abc.abstractmethod
  def read_record(self, shard: int, record: int) -> tuple[bytes, int]:
    """The file and the label of a record of a shard, both by number."""

  @property
  def whole_listing(self) -> str:
    """Hash the shards' names and counts, or what they were converted from."""
    if self._whole_listing:
      return self._whole_listing
    names = (Path(shard).name for shard in self.shards)
    return hash_listing([*names, *self.counts])

  def read(self, index: int) -> tuple[bytes, int]:
    """The file and the label of an example."""
    return self.read_record(*self._place(index))

  def where(self, index: int) -> str:
    """The shard, and the record's number from 0."""
    shard, record = self._place(index)
    return f"{self.shards[shard]}, record {record}"

  def _place(self, index: int) -> tuple[int, int]:
    shard = bisect.bisect_right(self._starts, index) - 1
    return shard, index - self._starts[shard]
