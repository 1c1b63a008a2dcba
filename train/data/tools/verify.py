"""Verification of a data set: read every file, decode every image."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from ...errors import UsageError, printable
from ..decoding.picture import Picture
from ..images.discovery.discover import discover
from ..images.discovery.layout import DatasetLayout
from ..images.index import INDEX_FILE, Shard, read_index
from ..images.labels import check_labels
from ..images.opening import open_split
from ..images.readers.array_record import sha256
from ..images.readers.encoded import EncodedImages, read_error
from ..loading.parallel import map_in_threads
from ..source import (
  SPLITS,
  BadExampleError,
  Decoding,
  Split,
  check_same_classes,
)

_Open = Callable[[DatasetLayout, Split], EncodedImages]
_REDUCTION = 8  # the largest, as the pixels are not used


def verify(
  folder: Path,
  console: Console,
  *,
  num_classes: int | None = None,
  label_offset: int | None = None,
  strict_jpeg: bool = True,
) -> int:
  """Check a data set and print every problem.

  Files from `convert` are compared with their checksums. Of other data, every
  image is read and decoded, and every label is checked.

  Args:
    folder: Folder that `open_images` reads.
    console: Console for the report and the progress.
    num_classes: Number of classes; None takes the number in the data, or 1000
      if the data has none.
    label_offset: Label of the first class in shards and label files; None takes
      the default of the format.
    strict_jpeg: True to report every JPEG that libjpeg warns about; False to
      report those that training refuses.

  Returns:
    Number of problems.

  Raises:
    UsageError: The folder has no data set.
  """
  layout = discover(folder)
  report = _Report(console)
  open_part = partial(
    open_split, num_classes=num_classes, label_offset=label_offset
  )
  if (layout.folder / INDEX_FILE).is_file():
    _verify_converted(layout, open_part, report)
  elif layout.splits:
    _verify_images(layout, open_part, Decoding(strict=strict_jpeg), report)
  else:
    raise UsageError(next(iter(layout.problems.values())))
  return len(report.problems)


class _Report:
  """A printer of problems, each once, and of other lines."""

  def __init__(self, console: Console):
    self.console = console
    self.problems: set[str] = set()

  def add(self, problem: object) -> None:
    """Print a problem, unless it was printed before."""
    line = str(problem)
    if line not in self.problems:
      self.problems.add(line)
      self.print(line)

  def print(self, line: str) -> None:
    """Print a line without interpreting markup."""
    self.console.print(
      printable(line), highlight=False, markup=False, soft_wrap=True
    )


def _verify_converted(
  layout: DatasetLayout, open_part: _Open, report: _Report
) -> None:
  index = read_index(layout.folder)
  shards = [shard for each in index.splits.values() for shard in each]

  def damage(shard: Shard) -> str:
    path = layout.folder / shard.file
    try:
      digest = sha256(path)
    except OSError as error:
      return f"{path}: {read_error(error)}"
    if digest != shard.sha256:
      return (
        f"{path}: damaged: its SHA-256 is {digest}, {INDEX_FILE} has "
        f"{shard.sha256}; copy it again, or convert the data again"
      )
    return ""

  with Progress(console=report.console) as progress:
    examined = map_in_threads(damage, shards)
    for problem in progress.track(
      examined, len(shards), description="verifying"
    ):
      if problem:
        report.add(problem)
  whole = len(shards) - len(report.problems)
  report.print(f"{whole} of {len(shards)} shards match their checksums")
  if not report.problems:
    for split in SPLITS:
      try:
        open_part(layout, split)
      except UsageError as error:
        report.add(error)


def _verify_images(
  layout: DatasetLayout, open_part: _Open, decoding: Decoding, report: _Report
) -> None:
  """Read the data shard by shard, so that every bad shard is reported."""
  for split in SPLITS:
    if split in layout.problems:
      report.add(layout.problems[split])
      continue
    classes: Counter[int] = Counter()
    examples = num_classes = 0
    parts = _parts(layout, split)
    with Progress(console=report.console) as progress:
      bar = progress.add_task(f"verifying {split}", total=len(parts))
      for done, part in enumerate(parts, 1):
        try:
          images = open_part(part, split)
        except UsageError as error:
          report.add(error)
          continue
        examples += len(images)
        num_classes = images.num_classes
        for label, problem in _examine(images, decoding):
          if problem:
            report.add(problem)
          else:
            classes[label] += 1
          progress.advance(bar, 1 / len(images))
        progress.update(bar, completed=done)
    report.print(f"{split}: {_summary(classes, examples, num_classes)}")
  try:
    with report.console.status("checking all labels"):
      splits = [open_part(layout, split) for split in layout.splits]
      check_same_classes(splits[0], splits[-1])
      check_labels(*splits)
  except UsageError as error:
    report.add(error)


def _parts(layout: DatasetLayout, split: Split) -> list[DatasetLayout]:
  """Divide a split into layouts of one shard each."""
  split_layout = layout.splits[split]
  if not split_layout.shards:
    return [layout]
  return [
    replace(layout, splits={split: replace(split_layout, shards=[shard])})
    for shard in split_layout.shards
  ]


def _examine(
  images: EncodedImages, decoding: Decoding
) -> Iterator[tuple[int, str]]:
  """Yield the label of each example, and its problem or ""."""

  def examine(index: int) -> tuple[int, str]:
    try:
      file, label = images.checked(index)
      Picture(file, decoding).decode(_REDUCTION)
      return label, ""
    except BadExampleError as error:
      return -1, f"{images.where(index)}: {error}"
    except UsageError as error:  # a label outside the classes, with its place
      return -1, str(error)

  return map_in_threads(examine, range(len(images)))


def _summary(classes: Counter[int], examples: int, num_classes: int) -> str:
  text = f"{classes.total():,} of {examples:,} images are undamaged"
  if not classes:
    return text
  counts = sorted({min(classes.values()), max(classes.values())})
  each = " to ".join(f"{count:,}" for count in counts)
  return (
    f"{text}; {len(classes):,} of {num_classes:,} classes, {min(classes)} to "
    f"{max(classes)}, have {each} images each"
  )
