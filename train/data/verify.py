"""Whether a data set is whole: every file read, every image decoded."""

import collections
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from ..errors import UsageError
from .decode import Picture
from .images import open_images
from .images.array_record import sha256
from .images.encoded import EncodedImages
from .images.index import NAME, Shard, read_index
from .images.shard_files import SPLIT_NAMES
from .parallel import map_in_threads
from .source import BadExampleError, Decoding, Split

_SMALLEST = 8


def verify(
  folder: Path,
  console: Console,
  *,
  num_classes: int | None,
  strict_jpeg: bool = True,
) -> int:
  """Check a data set and print everything that is wrong with it.

  Files that `convert` wrote are compared with their checksums. Of other data
  every record is read and decoded.

  Args:
    folder: A folder that `open_images` reads.
    console: Where the report is printed, and progress shown.
    num_classes: Number of classes in shards; None takes what the data says,
      and 1000 where it says nothing.
    strict_jpeg: Count every JPEG that libjpeg warns of as damaged; without it,
      those that training refuses.

  Returns:
    How many things are wrong.

  Raises:
    UsageError: there is no data set in the folder.
  """
  if (folder / NAME).is_file():
    return _verify_converted(folder, console)
  return _verify_images(folder, console, num_classes, strict_jpeg)


def _verify_converted(folder: Path, console: Console) -> int:
  index = read_index(folder)
  shards = [shard for each in index.splits.values() for shard in each]

  def damage(shard: Shard) -> str | None:
    path = folder / shard.file
    try:
      found = sha256(path)
    except OSError as error:
      return f"{path}: {error.strerror}"
    if found != shard.sha256:
      return (
        f"{path}: damaged: its SHA-256 is {found}, {NAME} has {shard.sha256}"
      )
    return None

  damaged = 0
  with Progress(console=console) as progress:
    found = map_in_threads(damage, shards)
    for problem in progress.track(found, len(shards), description="verifying"):
      if problem:
        _print(console, problem)
        damaged += 1
  _print(
    console, f"{len(shards) - damaged} of {len(shards)} shards are as written"
  )
  return damaged


def _verify_images(
  folder: Path, console: Console, num_classes: int | None, strict_jpeg: bool
) -> int:
  splits: dict[Split, EncodedImages] = {}
  refused: list[UsageError] = []
  for split in SPLIT_NAMES:
    try:
      splits[split] = open_images(folder, split, num_classes)
    except UsageError as error:
      refused.append(error)
  if not splits:
    raise refused[0]
  for refusal in refused:
    _print(console, str(refusal))
  damaged = len(refused)
  total = sum(map(len, splits.values()))
  with Progress(console=console) as progress:
    bar = progress.add_task("verifying", total=total)
    for split, images in splits.items():
      labels: collections.Counter[int] = collections.Counter()
      for label, problem in _examine(images, Decoding(strict=strict_jpeg)):
        if problem:
          _print(console, problem)
          damaged += 1
        else:
          labels[label] += 1
        progress.advance(bar)
      _print(console, f"{split}: {_summary(labels, images)}")
  return damaged


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


def _summary(labels: collections.Counter[int], images: EncodedImages) -> str:
  whole = labels.total()
  text = f"{whole:,} of {len(images):,} images are whole"
  if not whole:
    return text
  least, most = min(labels.values()), max(labels.values())
  return (
    f"{text}; {len(labels):,} of {images.num_classes:,} classes, with "
    f"{least:,} to {most:,} images each; labels {min(labels)} to {max(labels)}"
  )


def _print(console: Console, line: str) -> None:
  console.print(line, highlight=False, markup=False, soft_wrap=True)
