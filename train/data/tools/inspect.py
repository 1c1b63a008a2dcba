"""Inspection of a folder of images: format, counts, labels and problems."""

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
from ..source import SPLITS, Split, check_same_classes

_MOST_NAMED = 5


def inspect(
  folder: str,
  console: Console,
  *,
  num_classes: int | None = None,
  label_offset: int | None = None,
) -> list[str]:
  """Print how podscale reads a data set, and if it is ready to train on.

  This reads all labels and decodes no image; `verify` does.

  Args:
    folder: Folder or URL, see `open_images`.
    console: Console for the report and the progress.
    num_classes: Number of classes, if the data has none.
    label_offset: Label of the first class, see `open_images`.

  Returns:
    Problems, each in one line with its cure; empty if the data is ready.
  """
  problems: list[str] = []
  try:
    layout = discover(folder)
    sources = _open(layout, console, problems, num_classes, label_offset)
  except UsageError as error:
    problems.append(str(error))
  else:
    _print(console, f"{layout.folder}: {_formats(layout)}")
    labels = {
      split: _describe(console, layout, split, source, problems)
      for split, source in sources.items()
    }
    _describe_classes(console, layout, sources, labels)
    problems += _label_problems(sources, labels)
  for problem in problems:
    _print(console, f"problem: {problem}")
  _print(console, "not ready" if problems else "ready")
  return problems


def _open(
  layout: DatasetLayout,
  console: Console,
  problems: list[str],
  num_classes: int | None,
  label_offset: int | None,
) -> dict[Split, EncodedImages]:
  sources: dict[Split, EncodedImages] = {}
  with _progress(console) as progress:
    for split in SPLITS:
      bar = progress.add_task(f"opening {split}", total=None)
      try:
        sources[split] = open_split(
          layout, split, num_classes, label_offset=label_offset
        )
      except UsageError as error:
        problems.append(str(error))
      progress.remove_task(bar)
  return sources


def _formats(layout: DatasetLayout) -> str:
  """Name the formats of both splits, once where they are the same."""
  kinds = dict.fromkeys(FORMAT_NAMES[s.format] for s in layout.splits.values())
  return " and ".join(kinds) or "no images that can be read"


class _Labels(NamedTuple):
  """Number of images of each label, and the label of class 0."""

  counts: Counter[int]
  first: int

  @property
  def highest_class(self) -> int:
    """Highest class that has images; -1 if no image can be read."""
    return max(self.counts, default=self.first - 1) - self.first


def _describe(
  console: Console,
  layout: DatasetLayout,
  split: Split,
  source: EncodedImages,
  problems: list[str],
) -> _Labels:
  """Print a split's counts and labels."""
  split_layout = layout.splits[split]
  shards = _in_shards(len(split_layout.shards))
  _print(
    console, f"{split}: {len(source):,} images{shards}, {split_layout.folder}"
  )
  labels = _read_labels(console, split, source)
  unread = len(source) - labels.counts.total()
  if unread:
    problems.append(
      f"{split}: {unread:,} of {len(source):,} images cannot be read; the "
      "command verify lists them"
    )
  if labels.counts:
    _print(
      console,
      f"  labels in the data: {min(labels.counts)} to {max(labels.counts)}; "
      f"class 0 has label {labels.first}",
    )
    counts = [
      labels.counts[labels.first + c] for c in range(source.num_classes)
    ]
    _print(
      console,
      f"  images per class: minimum {min(counts):,}, median "
      f"{statistics.median(counts):,.0f}, maximum {max(counts):,}; "
      f"{counts.count(0):,} of {len(counts):,} classes have none",
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
        first = stored.first_label
      progress.advance(bar)
  return _Labels(counts, first)


def _label_problems(
  sources: Mapping[Split, EncodedImages], labels: Mapping[Split, _Labels]
) -> list[str]:
  """List the problems of labels and classes of both splits."""
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
    if len(sources) == len(SPLITS):
      check_same_classes(sources["train"], sources["test"])
  except UsageError as error:
    problems.append(str(error))
  return problems


def _describe_classes(
  console: Console,
  layout: DatasetLayout,
  sources: Mapping[Split, EncodedImages],
  labels: Mapping[Split, _Labels],
) -> None:
  """Print number and names of the classes, and the ignored files."""
  for source in list(sources.values())[:1]:
    origin = layout.classes_from or "the default or --num-classes"
    _print(console, f"classes: {source.num_classes:,}, from {origin}")
    used = max(each.highest_class for each in labels.values()) + 1
    # A label below the first shows that the first is wrong, and so is `used`.
    whole = all(
      min(e.counts, default=e.first) >= e.first for e in labels.values()
    )
    if not layout.classes_from and whole and 0 < used < source.num_classes:
      _print(console, f"  if there are no more classes: --num-classes {used}")
    if source.class_names:
      _print(console, f"class names: {_some(source.class_names)}")
  left_out = [text for s in sources.values() for text in s.left_out]
  listed = dict.fromkeys(left_out or layout.left_out())
  _print(console, f"left out: {'; '.join(listed) or 'nothing'}")


def _progress(console: Console) -> Progress:
  """Make a progress bar that leaves no trace, and writes nothing to files."""
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
