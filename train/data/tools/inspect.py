"""What a folder of images is taken for, and what is wrong with it."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress

from ...errors import UsageError, printable
from ..images.discovery.discover import discover
from ..images.discovery.layout import FORMAT_NAMES, DatasetLayout
from ..images.labels import check_labels
from ..images.opening import open_split
from ..images.readers.encoded import EncodedImages
from ..images.shard_names import SPLIT_NAMES
from ..source import Split, check_same_classes

_MOST_NAMED = 5


def inspect(
  folder: str,
  console: Console,
  *,
  num_classes: int | None = None,
  label_offset: int | None = None,
) -> list[str]:
  """Print what a data set is taken for, and whether it can be trained on.

  All labels are read; images are not decoded, which `verify` does.

  Args:
    folder: A folder or URL, as `open_images` takes it.
    console: Where to print, and to show progress.
    num_classes: Number of classes, where the data does not say it.
    label_offset: Label of the first class, as `open_images` has it.

  Returns:
    What is wrong, each in one line with its cure; nothing where the data is
    ready.
  """
  problems: list[str] = []
  try:
    found = discover(folder)
    sources = _open(found, console, problems, num_classes, label_offset)
  except UsageError as error:
    problems.append(str(error))
  else:
    _print(console, f"{found.folder}: {_kinds(found)}")
    labels = {
      split: _describe(console, found, split, source, problems)
      for split, source in sources.items()
    }
    _describe_classes(console, found, sources, labels)
    problems += _label_problems(sources, labels)
  for problem in problems:
    _print(console, f"wrong: {problem}")
  _print(console, "not ready" if problems else "ready")
  return problems


def _open(
  found: DatasetLayout,
  console: Console,
  problems: list[str],
  num_classes: int | None,
  label_offset: int | None,
) -> dict[Split, EncodedImages]:
  sources: dict[Split, EncodedImages] = {}
  with _progress(console) as progress:
    for split in SPLIT_NAMES:
      bar = progress.add_task(f"opening {split}", total=None)
      try:
        sources[split] = open_split(
          found, split, num_classes, label_offset=label_offset
        )
      except UsageError as error:
        problems.append(str(error))
      progress.remove_task(bar)
  return sources


def _kinds(found: DatasetLayout) -> str:
  """Name the formats of both splits, once where they are the same."""
  kinds = dict.fromkeys(FORMAT_NAMES[s.kind] for s in found.splits.values())
  return " and ".join(kinds) or "no images that can be read"


class _Labels(NamedTuple):
  """How many images each label has, and which is that of class 0."""

  counts: Counter[int]
  first: int

  @property
  def highest_class(self) -> int:
    """The last class that has images; -1 where no image can be read."""
    return max(self.counts, default=self.first - 1) - self.first


def _describe(
  console: Console,
  found: DatasetLayout,
  split: Split,
  source: EncodedImages,
  problems: list[str],
) -> _Labels:
  """Print a split's counts and labels."""
  where = found.splits[split]
  shards = _in_shards(len(where.shards))
  _print(console, f"{split}: {len(source):,} images{shards}, {where.folder}")
  labels = _read_labels(console, split, source)
  unread = len(source) - labels.counts.total()
  if unread:
    problems.append(
      f"{split}: {unread:,} of {len(source):,} images cannot be read; verify "
      "lists them"
    )
  if labels.counts:
    _print(
      console,
      f"  labels in the data: {min(labels.counts)} to {max(labels.counts)}; "
      f"class 0 has the label {labels.first}",
    )
    counts = [
      labels.counts[labels.first + c] for c in range(source.num_classes)
    ]
    _print(
      console,
      f"  images of a class: {min(counts):,} at least, "
      f"{statistics.median(counts):,.0f} in the median, {max(counts):,} at "
      f"most; {counts.count(0):,} of {len(counts):,} classes have none",
    )
  return labels


def _read_labels(
  console: Console, split: Split, source: EncodedImages
) -> _Labels:
  counts: Counter[int] = Counter()
  first = source.label_offset or 0
  with _progress(console) as progress:
    bar = progress.add_task(f"labels of {split}", total=len(source))
    for stored in source.labels():
      counts[stored.label] += 1
      if source.label_offset is None:
        first = stored.first
      progress.advance(bar)
  return _Labels(counts, first)


def _label_problems(
  sources: Mapping[Split, EncodedImages], labels: Mapping[Split, _Labels]
) -> list[str]:
  """Say what is wrong with the labels and the classes of both splits."""
  problems = []
  seen = [
    (min(each.counts, default=each.first) - each.first, each.highest_class)
    for each in labels.values()
  ]
  classes = min((s.num_classes for s in sources.values()), default=0)
  whole = all(low >= 0 and high < classes for low, high in seen)
  from_1 = any(each.first == 1 for each in labels.values())
  highest = max((high for _, high in seen), default=-1)
  try:
    if not whole or (from_1 and highest < classes - 1):
      check_labels(*sources.values())
  except UsageError as error:
    problems.append(str(error))
  try:
    if len(sources) == len(SPLIT_NAMES):
      check_same_classes(sources["train"], sources["test"])
  except UsageError as error:
    problems.append(str(error))
  return problems


def _describe_classes(
  console: Console,
  found: DatasetLayout,
  sources: Mapping[Split, EncodedImages],
  labels: Mapping[Split, _Labels],
) -> None:
  """Print number and names of the classes, and which files are left out."""
  for source in list(sources.values())[:1]:
    says = found.classes_from or "the default or --num-classes"
    _print(console, f"classes: {source.num_classes:,}, by {says}")
    used = max(each.highest_class for each in labels.values()) + 1
    # Where labels lie below the first, the first is wrong and so is the number.
    whole = all(
      min(e.counts, default=e.first) >= e.first for e in labels.values()
    )
    if not found.classes_from and whole and 0 < used < source.num_classes:
      _print(console, f"  if these are all classes: --num-classes {used}")
    if source.class_names:
      _print(console, f"class names: {_some(source.class_names)}")
  left_out = [text for s in sources.values() for text in s.left_out]
  listed = dict.fromkeys(left_out or found.left_out())
  _print(console, f"left out: {'; '.join(listed) or 'nothing'}")


def _progress(console: Console) -> Progress:
  """Make a bar that leaves nothing behind, and nothing in a file."""
  return Progress(
    console=console, transient=True, disable=not console.is_terminal
  )


def _in_shards(count: int) -> str:
  return f" in {count:,} shard{'s' * (count != 1)}" if count else ""


def _some(names: Sequence[str]) -> str:
  more = len(names) - _MOST_NAMED
  return ", ".join(names[:_MOST_NAMED]) + f" and {more:,} more" * (more > 0)


def _print(console: Console, line: str) -> None:
  console.print(printable(line), highlight=False, markup=False, soft_wrap=True)
