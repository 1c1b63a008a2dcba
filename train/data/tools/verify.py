"""Whether a data set is whole: every file read, every image decoded."""

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
from ..images.index import NAME, Shard, read_index
from ..images.labels import check_labels
from ..images.opening import open_split
from ..images.readers.array_record import sha256
from ..images.readers.encoded import EncodedImages, read_error
from ..images.shard_names import SPLIT_NAMES
from ..loading.parallel import map_in_threads
from ..source import (
  BadExampleError,
  Decoding,
  Split,
  check_same_classes,
)

_Open = Callable[[DatasetLayout, Split], EncodedImages]
_SMALLEST = 8  # the most that a JPEG can be reduced in decoding


def verify(
  folder: Path,
  console: Console,
  *,
  num_classes: int | None = None,
  label_offset: int | None = None,
  strict_jpeg: bool = True,
) -> int:
  """Check a data set and print everything that is wrong with it.

  Files that `convert` wrote are compared with their checksums. Of other data
  every record is read and decoded, and its label checked.

  Args:
    folder: A folder that `open_images` reads.
    console: Where the report is printed, and progress shown.
    num_classes: Number of classes in shards; None takes what the data says,
      and 1000 where it says nothing.
    label_offset: Label of the first class in shards and label files; None takes
      what their format has.
    strict_jpeg: Count every JPEG that libjpeg warns of as damaged; without it,
      those that training refuses.

  Returns:
    How many things are wrong.

  Raises:
    UsageError: there is no data set in the folder.
  """
  found = discover(folder)
  report = _Report(console)
  open_part = partial(
    open_split, num_classes=num_classes, label_offset=label_offset
  )
  if (found.folder / NAME).is_file():
    _verify_converted(found, open_part, report)
  elif found.splits:
    _verify_images(found, open_part, Decoding(strict=strict_jpeg), report)
  else:
    raise UsageError(next(iter(found.problems.values())))
  return len(report.problems)


class _Report:
  """Prints what is wrong, each thing once, and what is not."""

  def __init__(self, console: Console):
    self.console = console
    self.problems: set[str] = set()

  def add(self, problem: object) -> None:
    """Print a problem that is not known yet."""
    line = str(problem)
    if line not in self.problems:
      self.problems.add(line)
      self.say(line)

  def say(self, line: str) -> None:
    """Print a line, of which nothing is markup."""
    self.console.print(
      printable(line), highlight=False, markup=False, soft_wrap=True
    )


def _verify_converted(
  found: DatasetLayout, open_part: _Open, report: _Report
) -> None:
  index = read_index(found.folder)
  shards = [shard for each in index.splits.values() for shard in each]

  def damage(shard: Shard) -> str:
    path = found.folder / shard.file
    try:
      digest = sha256(path)
    except OSError as error:
      return f"{path}: {read_error(error)}"
    if digest != shard.sha256:
      return (
        f"{path}: damaged: its SHA-256 is {digest}, {NAME} has {shard.sha256}"
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
  report.say(f"{whole} of {len(shards)} shards are as written")
  if not report.problems:
    for split in SPLIT_NAMES:
      try:
        open_part(found, split)
      except UsageError as error:
        report.add(error)


def _verify_images(
  found: DatasetLayout, open_part: _Open, decoding: Decoding, report: _Report
) -> None:
  """Read the data shard by shard, so that each is named that cannot be."""
  for split in SPLIT_NAMES:
    if split in found.problems:
      report.add(found.problems[split])
      continue
    classes: Counter[int] = Counter()
    examples = num_classes = 0
    parts = _parts(found, split)
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
    report.say(f"{split}: {_summary(classes, examples, num_classes)}")
  try:
    with report.console.status("checking all labels"):
      splits = [open_part(found, split) for split in found.splits]
      check_same_classes(splits[0], splits[-1])
      check_labels(*splits)
  except UsageError as error:
    report.add(error)


def _parts(found: DatasetLayout, split: Split) -> list[DatasetLayout]:
  """Cut a split into its shards."""
  where = found.splits[split]
  if not where.shards:
    return [found]
  return [
    replace(found, splits={split: replace(where, shards=[shard])})
    for shard in where.shards
  ]


def _examine(
  images: EncodedImages, decoding: Decoding
) -> Iterator[tuple[int, str]]:
  """Yield the label of each example, and what is wrong with it or ""."""

  def examine(index: int) -> tuple[int, str]:
    try:
      file, label = images.checked(index)
      Picture(file, decoding).decode(_SMALLEST)
      return label, ""
    except BadExampleError as error:
      return -1, f"{images.where(index)}: {error}"
    except UsageError as error:  # a label of no class, with its place
      return -1, str(error)

  return map_in_threads(examine, range(len(images)))


def _summary(classes: Counter[int], examples: int, num_classes: int) -> str:
  text = f"{classes.total():,} of {examples:,} images are whole"
  if not classes:
    return text
  counts = sorted({min(classes.values()), max(classes.values())})
  each = " to ".join(f"{count:,}" for count in counts)
  return (
    f"{text}; {len(classes):,} of {num_classes:,} classes, {min(classes)} to "
    f"{max(classes)}, have {each} images each"
  )
