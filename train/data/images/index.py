"""index.json, which `convert` writes beside ArrayRecord shards."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...errors import UsageError, one_line
from ...records.files import write_atomically
from ..source import Split

NAME = "index.json"
PARTIAL = "index.partial.json"
"""What the index is called while a conversion goes on."""
_CHECKSUM = "checksum"
_UNREADABLE = (
  *(OSError, ValueError, TypeError, KeyError, AttributeError),
  *(OverflowError, RecursionError),
)
# Those of podscale's first indexes, which had no checksum.
_FIRST_KEYS = {"num_classes", "class_names", "examples_per_shard", "splits"}


@dataclass(frozen=True)
class Shard:
  """One file of a split."""

  file: str
  """Its name, in the index' folder."""
  examples: int
  bytes: int
  sha256: str


@dataclass(frozen=True)
class Origin:
  """The data set that was converted."""

  path: str
  """Where it was; for people, it may have moved since."""
  examples: dict[Split, int]
  listing: dict[Split, str]
  """`EncodedImages.whole_listing` of each split."""
  labels: Sequence[int] = ()
  """Lowest and highest label in its files, both splits together."""


@dataclass(frozen=True)
class Index:
  """What a converted data set holds."""

  num_classes: int
  class_names: Sequence[str] | None
  examples_per_shard: int
  splits: dict[Split, list[Shard]]
  origin: Origin | None = None
  """None where an earlier version of podscale wrote the index."""
  skipped: dict[str, str] = field(default_factory=dict)
  """The reason for each example that was left out, by its place."""
  strict: bool = False
  """Whether every JPEG was decoded without a warning."""
  label_offset: int | None = None
  """Label of the first class in the origin's files, where it was given; the
  labels in the shards begin at 0."""

  def examples(self, split: Split) -> int:
    """Count the examples of a split."""
    return sum(shard.examples for shard in self.splits.get(split, []))

  def whole_listing(self, split: Split) -> str | None:
    """Return the listing of the origin; None where examples are left out."""
    if self.origin and self.examples(split) == self.origin.examples.get(split):
      return self.origin.listing.get(split)
    return None


def read_index(folder: Path, name: str = NAME) -> Index:
  """Read a folder's index.

  Raises:
    UsageError: it is not readable, is not as it was written, or names a file
      outside the folder.
  """
  path = folder / name
  try:
    record = json.loads(path.read_bytes())
    if not isinstance(record, dict):
      raise ValueError("it is no JSON object")
    checksum = record.pop(_CHECKSUM, None)
    checked = checksum is not None or set(record) != _FIRST_KEYS
    if checked and checksum != _checksum(record):
      raise ValueError("its checksum is wrong")
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
      f"{path}: not an index of podscale's, or damaged: {one_line(error)}; "
      "convert the data again"
    ) from None
  for shard in (shard for shards in splits.values() for shard in shards):
    if Path(shard.file).name != shard.file:
      raise UsageError(f"{path}: {shard.file!r} is not a file in the folder")
  return index


def write_index(folder: Path, index: Index, name: str = NAME) -> None:
  """Write a folder's index with its checksum, whole or not at all."""
  record = asdict(index)
  record[_CHECKSUM] = _checksum(record)
  write_atomically(folder / name, json.dumps(record, indent=2) + "\n")


def _checksum(record: dict[str, Any]) -> str:
  """Hash a record as JSON that is the same whatever its layout."""
  text = json.dumps(record, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
