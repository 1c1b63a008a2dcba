"""The index of converted data, index.json beside the ArrayRecord shards."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...errors import UsageError, one_line
from ...records.files import write_atomically
from ..source import Split

INDEX_FILE = "index.json"
PARTIAL_INDEX_FILE = "index.partial.json"
"""Name of the index during a conversion."""
_CHECKSUM = "checksum"
_UNREADABLE = (
  *(OSError, ValueError, TypeError, KeyError, AttributeError),
  *(OverflowError, RecursionError),
)
# Keys of podscale's first indexes, which had no checksum.
_FIRST_KEYS = {"num_classes", "class_names", "examples_per_shard", "splits"}


@dataclass(frozen=True)
class Shard:
  """One file of a split."""

  file: str
  """File name, in the folder of the index."""
  examples: int
  bytes: int
  sha256: str


@dataclass(frozen=True)
class Origin:
  """The data set that was converted."""

  path: str
  """Path at the time of the conversion, for people."""
  examples: dict[Split, int]
  listing: dict[Split, str]
  """`EncodedImages.whole_listing` of each split."""
  labels: Sequence[int] = ()
  """Lowest and highest label in the files of both splits."""


@dataclass(frozen=True)
class Index:
  """The contents of a converted data set."""

  num_classes: int
  class_names: Sequence[str] | None
  examples_per_shard: int
  splits: dict[Split, list[Shard]]
  origin: Origin | None = None
  """None in an index from an earlier version of podscale."""
  skipped: dict[str, str] = field(default_factory=dict)
  """Reason for each skipped example, by its place."""
  strict: bool = False
  """True if every JPEG was decoded without a warning."""
  label_offset: int | None = None
  """Label of the first class in the origin's files, if the user gave it; labels
  in the shards start at 0."""

  def examples(self, split: Split) -> int:
    """Count the examples of a split."""
    return sum(shard.examples for shard in self.splits.get(split, []))

  def whole_listing(self, split: Split) -> str | None:
    """Return the listing of the origin; None if examples were skipped."""
    if self.origin and self.examples(split) == self.origin.examples.get(split):
      return self.origin.listing.get(split)
    return None


def read_index(folder: Path, name: str = INDEX_FILE) -> Index:
  """Read a folder's index.

  Raises:
    UsageError: The index cannot be read, was changed, or names a file outside
      the folder.
  """
  path = folder / name
  try:
    record = json.loads(path.read_bytes())
    if not isinstance(record, dict):
      raise ValueError("not a JSON object")
    checksum = record.pop(_CHECKSUM, None)
    checked = checksum is not None or set(record) != _FIRST_KEYS
    if checked and checksum != _checksum(record):
      raise ValueError("wrong checksum")
    splits = {
      split: [Shard(**shard) for shard in shards]
      for split, shards in record["splits"].items()
    }
    index = Index(
      num_classes=int(record["num_classes"]),
      class_names=record["class_names"],
      examples_per_shard=int(record["examples_per_shard"]),
      splits=splits,
      origin=Origin(**record["origin"]) if record.get("origin") else None,
      skipped=record.get("skipped", {}),
      strict=record.get("strict") is True,
      label_offset=record.get("label_offset"),
    )
  except _UNREADABLE as error:
    raise UsageError(
      f"{path}: damaged, or not an index from podscale: {one_line(error)}; "
      "convert the data again"
    ) from None
  for shard in (shard for shards in splits.values() for shard in shards):
    if Path(shard.file).name != shard.file:
      raise UsageError(
        f"{path}: names {shard.file!r}, which is no file of this folder; "
        "convert the data again"
      )
  return index


def write_index(folder: Path, index: Index, name: str = INDEX_FILE) -> None:
  """Write a folder's index with its checksum, atomically."""
  record = asdict(index)
  record[_CHECKSUM] = _checksum(record)
  write_atomically(folder / name, json.dumps(record, indent=2) + "\n")


def _checksum(record: dict[str, Any]) -> str:
  """Hash a record as JSON with sorted keys."""
  text = json.dumps(record, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
