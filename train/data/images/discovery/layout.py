"""What a folder of images was found to hold."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ...source import Split
from ..paths import counts_by_kind, file_kind
from ..shard_names import ShardFormat

Kind = Literal["podscale", "folders", "labelled"] | ShardFormat

FORMAT_NAMES: dict[Kind, str] = {
  "podscale": "podscale's ArrayRecord shards with an index",
  "array_record": "ArrayRecord shards",
  "parquet": "Parquet shards",
  "tar": "tar shards",
  "tfrecord": "TFRecord shards",
  "folders": "class folders",
  "labelled": "image files and a label file",
}

OTHER_FILES = "neither images nor shards"
"""Why most files are left out; the other reasons are worth a name."""

_MOST_NAMED = 3


@dataclass(frozen=True)
class SplitLayout:
  """Where the images of a split are.

  Attributes:
    kind: The format.
    word: What the split is called there.
    folder: The folder of the shards, of the class folders or of the images.
    shards: File names of the shards, in order; none for images in files.
    labels: The label file of images that lie in one folder.
    records: How many records each shard has, where the data says it.
  """

  kind: Kind
  word: str
  folder: Path
  shards: Sequence[str] = ()
  labels: Path | None = None
  records: Mapping[str, int] = field(default_factory=dict)


@dataclass
class DatasetLayout:
  """What a folder holds.

  Attributes:
    folder: The folder of the data, below the one that was given or that itself.
    splits: What can be opened.
    problems: Why a split cannot be opened, with the cure.
    class_names: Names by label, where the data says them.
    num_classes: Number of classes, where the data says it.
    classes_from: What says it.
    ignored: File names that are left out, by reason.
  """

  folder: Path
  splits: dict[Split, SplitLayout] = field(default_factory=dict)
  problems: dict[Split, str] = field(default_factory=dict)
  class_names: tuple[str, ...] | None = None
  num_classes: int | None = None
  classes_from: str = ""
  ignored: dict[str, list[str]] = field(default_factory=dict)

  def ignore(self, names: Iterable[str], reason: str) -> None:
    """Add files that are left out."""
    for name in names:
      self.ignored.setdefault(reason, []).append(name)

  def left_out(self) -> tuple[str, ...]:
    """Describe the files that are left out, one phrase for each reason."""
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
