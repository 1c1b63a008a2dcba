"""The layout of a folder of images: splits, formats, shards and classes."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ...source import Split
from ..paths import counts_by_kind, file_kind
from ..shard_names import ShardFormat

DataFormat = Literal["podscale", "folders", "labelled"] | ShardFormat

FORMAT_NAMES: dict[DataFormat, str] = {
  "podscale": "podscale's ArrayRecord shards with an index",
  "array_record": "ArrayRecord shards",
  "parquet": "Parquet shards",
  "tar": "tar shards",
  "tfrecord": "TFRecord shards",
  "folders": "class folders",
  "labelled": "image files and a label file",
}

OTHER_FILES = "neither images nor shards"
"""Reason to ignore a file; files of this reason are counted, not named."""

_MOST_NAMED = 3


@dataclass(frozen=True)
class SplitLayout:
  """The place and format of the images of a split.

  Attributes:
    format: Format of the files.
    split_name: Name of the split in this data set, such as "val".
    folder: Folder of the shards, the class folders or the images.
    shards: File names of the shards, in order; empty for image files.
    labels: Label file of images that lie in one folder.
    records: Number of records of each shard, if the data set records it.
  """

  format: DataFormat
  split_name: str
  folder: Path
  shards: Sequence[str] = ()
  labels: Path | None = None
  records: Mapping[str, int] = field(default_factory=dict)


@dataclass
class DatasetLayout:
  """The layout of a folder.

  Attributes:
    folder: Folder of the data: the given folder or one below it.
    splits: Splits that can be opened.
    problems: Reason and cure for each split that cannot be opened.
    class_names: Names by label, if the data set has them.
    num_classes: Number of classes, if the data set records it.
    classes_from: File or folder that gives the number of classes.
    ignored: Names of ignored files, by reason.
  """

  folder: Path
  splits: dict[Split, SplitLayout] = field(default_factory=dict)
  problems: dict[Split, str] = field(default_factory=dict)
  class_names: tuple[str, ...] | None = None
  num_classes: int | None = None
  classes_from: str = ""
  ignored: dict[str, list[str]] = field(default_factory=dict)

  def ignore(self, names: Iterable[str], reason: str) -> None:
    """Add files to ignore."""
    for name in names:
      self.ignored.setdefault(reason, []).append(name)

  def left_out(self) -> tuple[str, ...]:
    """Describe the ignored files, one phrase for each reason."""
    phrases = []
    for reason, names in self.ignored.items():
      if reason == OTHER_FILES:
        phrases.append(counts_by_kind(Counter(map(file_kind, names))))
      else:
        some = ", ".join(names[:_MOST_NAMED])
        more = len(names) - _MOST_NAMED
        rest = f" and {more} more" * (more > 0)
        phrases.append(f"{some}{rest} ({reason})")
    return tuple(phrases)
