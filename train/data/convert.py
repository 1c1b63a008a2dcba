"""From any data set of image files to ArrayRecord shards with an index."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from ..errors import UsageError
from .decode import Picture
from .images import open_images
from .images.array_record import sha256, write_array_record
from .images.encoded import EncodedImages
from .images.example_proto import write_image
from .images.index import NAME, Index, Origin, Shard, read_index, write_index
from .images.shard_files import SPLIT_NAMES
from .prefetch import cores
from .skipping import Skips
from .source import BadExampleError

_PARTIAL = "index.partial.json"
_CHUNK = 64  # files in memory at a time
_SMALLEST = 8  # the most that a JPEG can be reduced in decoding


def convert(
  source: Path,
  destination: Path,
  *,
  num_classes: int,
  examples_per_shard: int,
  skips: Skips,
  console: Console,
) -> Index:
  """Write both splits of a data set as ArrayRecord, each image decoded once.

  Begun again after it was stopped, it goes on behind the last whole shard.

  Args:
    source: A folder that `open_images` reads.
    destination: Folder of the shards and the index.
    num_classes: Of shards that do not say it.
    examples_per_shard: The last shard of a split may have fewer.
    skips: Counts images that cannot be decoded, which are left out.
    console: Where progress is shown.

  Returns:
    The index written.

  Raises:
    UsageError: the source cannot be used, the destination holds something else,
      or there are too many bad images.
  """
  splits = {
    split: open_images(source, split, num_classes) for split in SPLIT_NAMES
  }
  train = splits["train"]
  origin = Origin(
    path=str(source),
    examples={split: len(images) for split, images in splits.items()},
    listing={split: each.whole_listing for split, each in splits.items()},
  )
  index = _begun(destination, train, examples_per_shard, origin)
  total = sum(map(len, splits.values()))
  with Progress(console=console) as progress:
    bar = progress.add_task("converting", total=total)
    for split, images in splits.items():
      shards = index.splits[split]
      for start in range(0, len(images), examples_per_shard):
        end = min(start + examples_per_shard, len(images))
        number = start // examples_per_shard
        if number >= len(shards):
          count = -(-len(images) // examples_per_shard)
          name = (
            f"{SPLIT_NAMES[split]}-{number:05d}-of-{count:05d}.array_record"
          )
          wanted = range(start, end)
          shards.append(_write_shard(destination / name, images, wanted, skips))
          write_index(destination, index, _PARTIAL)
        progress.advance(bar, end - start)
  (destination / _PARTIAL).replace(destination / NAME)
  return index


def verify(folder: Path, console: Console) -> int:
  """Compare all shards of a converted data set with their checksums.

  Returns:
    How many shards are right: all of them.

  Raises:
    UsageError: one is missing or differs.
  """
  index = read_index(folder)
  shards = list(itertools.chain.from_iterable(index.splits.values()))
  with Progress(console=console) as progress:
    for shard in progress.track(shards, description="verifying"):
      path = folder / shard.file
      try:
        found = sha256(path)
      except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
      if found != shard.sha256:
        raise UsageError(
          f"{path}: damaged: its SHA-256 is {found}, {NAME} has {shard.sha256}"
        )
  return len(shards)


def _begun(
  destination: Path,
  train: EncodedImages,
  examples_per_shard: int,
  origin: Origin,
) -> Index:
  """What an earlier call has written there, or an empty index."""
  if (destination / NAME).exists():
    raise UsageError(f"{destination}: holds a converted data set already")
  mine = Index(
    num_classes=train.num_classes,
    class_names=train.class_names and list(train.class_names),
    examples_per_shard=examples_per_shard,
    splits={split: [] for split in SPLIT_NAMES},
    origin=origin,
  )
  if not (destination / _PARTIAL).exists():
    destination.mkdir(parents=True, exist_ok=True)
    if any(destination.iterdir()):
      raise UsageError(f"{destination}: is not empty; choose another folder")
    write_index(destination, mine, _PARTIAL)
    return mine
  begun = read_index(destination, _PARTIAL)
  for name in ("num_classes", "class_names", "examples_per_shard"):
    if getattr(begun, name) != getattr(mine, name):
      raise UsageError(
        f"{destination}: was begun with {name} {getattr(begun, name)}, this "
        f"has {getattr(mine, name)}; remove it or choose another folder"
      )
  return begun


def _write_shard(
  path: Path, images: EncodedImages, wanted: range, skips: Skips
) -> Shard:
  beside = path.with_name(path.name + ".tmp")
  count = write_array_record(beside, _records(images, wanted, skips))
  shard = Shard(path.name, count, beside.stat().st_size, sha256(beside))
  beside.replace(path)
  return shard


def _records(
  images: EncodedImages, wanted: range, skips: Skips
) -> Iterator[bytes]:
  def record(index: int) -> bytes | None:
    try:
      file, label = images.checked(index)
      Picture(file).decode(_SMALLEST)
      return write_image(file, label)
    except BadExampleError as error:
      skips.add(images.where(index), error)
      return None

  with ThreadPoolExecutor(cores()) as pool:
    for chunk in itertools.batched(wanted, _CHUNK):
      for made in pool.map(record, chunk):
        if made is not None:
          yield made
