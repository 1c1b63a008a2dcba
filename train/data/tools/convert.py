"""From any data set of image files to ArrayRecord shards with an index."""

import contextlib
import dataclasses
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from ...errors import UsageError
from ...records.files import make_folder
from ..decoding.picture import Picture
from ..images import open_images
from ..images.index import (
  NAME,
  PARTIAL,
  Index,
  Origin,
  Shard,
  read_index,
  write_index,
)
from ..images.labels import check_labels
from ..images.readers.array_record import (
  ArrayRecordImages,
  sha256,
  write_array_record,
)
from ..images.readers.encoded import EncodedImages
from ..images.readers.example_proto import write_image
from ..images.shard_names import SPLIT_NAMES
from ..loading.bad_examples import Skips
from ..loading.parallel import map_in_threads
from ..source import (
  BadExampleError,
  Decoding,
  Split,
  check_same_classes,
)
from .new_folder import check_new_folder

_SMALLEST = 8  # the most that a JPEG can be reduced in decoding

_SETTINGS = (
  *("num_classes", "class_names", "examples_per_shard"),
  *("strict", "label_offset"),
)

Splits = Mapping[Split, EncodedImages]


def convert(
  source: Path,
  destination: Path,
  *,
  num_classes: int | None = None,
  label_offset: int | None = None,
  examples_per_shard: int,
  strict_jpeg: bool = False,
  skips: Skips,
  console: Console,
) -> Index:
  """Write both splits of a data set as ArrayRecord, each image decoded once.

  Called again after it was stopped, it goes on behind the last whole shard.

  Args:
    source: A folder that `open_images` reads.
    destination: Folder of the shards and the index, new or begun.
    num_classes: Number of classes in shards; None takes what the data says,
      and 1000 where it says nothing.
    label_offset: Label of the first class in shards and label files; None takes
      what their format has. The labels that are written begin at 0.
    examples_per_shard: A shard has so many examples of the source, less those
      that are left out; the last of a split may have fewer.
    strict_jpeg: Refuse every JPEG that libjpeg warns of; without it, what
      training accepts is written.
    skips: Counts images that cannot be decoded, which are left out.
    console: Where progress is shown.

  Returns:
    The index written.

  Raises:
    UsageError: the source cannot be used, a label is of no class, the
      destination holds something else or was begun from other data, there are
      too many bad images, or a split has no others.
  """
  _check_destination(destination)  # before a long look at the source
  splits = {
    split: open_images(source, split, num_classes, label_offset=label_offset)
    for split in SPLIT_NAMES
  }
  check_same_classes(splits["train"], splits["test"])
  with console.status("checking all labels"):
    labels = sorted(check_labels(*splits.values()))
  train = splits["train"]
  plan = Index(
    num_classes=train.num_classes,
    class_names=train.class_names and list(train.class_names),
    examples_per_shard=examples_per_shard,
    splits={split: [] for split in splits},
    origin=Origin(
      path=str(source),
      examples={split: len(images) for split, images in splits.items()},
      listing={split: each.whole_listing for split, each in splits.items()},
      labels=[*labels[:1], *labels[-1:]],
    ),
    strict=strict_jpeg,
    label_offset=label_offset,
  )
  make_folder(destination)
  with _alone(destination):
    index = _begin(destination, plan, skips)
    _check_written(destination, index, splits, console)
    _write_shards(destination, index, splits, skips, console)
    return _finish(destination, index)


def _check_destination(destination: Path) -> None:
  """Refuse a folder that is finished, or that another program has filled."""
  if (destination / NAME).exists():
    raise UsageError(
      f"{destination}: holds a converted data set already; choose another "
      "folder, or remove it"
    )
  if not (destination / PARTIAL).exists():
    check_new_folder(destination)


@contextlib.contextmanager
def _alone(destination: Path) -> Iterator[None]:
  """Keep other conversions out of a folder, where its disk has locks."""
  folder = os.open(destination, os.O_RDONLY)
  try:
    try:
      fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise UsageError(
        f"{destination}: another conversion writes to it; wait until it ends "
        "or choose another folder"
      ) from None
    except OSError:
      pass  # some network disks have no locks
    yield
  finally:
    os.close(folder)


def _write_shards(
  destination: Path,
  index: Index,
  splits: Splits,
  skips: Skips,
  console: Console,
) -> None:
  """Write the shards that are missing, and note each in the partial index."""
  with Progress(console=console) as progress:
    bar = progress.add_task("converting", total=sum(map(len, splits.values())))
    for split, images in splits.items():
      shards = index.splits[split]
      wanted = _ranges(images, index)
      for number, each in enumerate(wanted):
        if number >= len(shards):
          path = destination / _name(split, number, len(wanted))
          shards.append(_write_shard(path, images, each, index.strict, skips))
          index.skipped.update(skips.reasons)
          write_index(destination, index, PARTIAL)
        progress.advance(bar, len(each))
      if not index.examples(split):
        raise UsageError(
          f"none of the {len(images)} {split} images can be used; remove "
          f"{destination} to begin again"
        )


def _begin(destination: Path, plan: Index, skips: Skips) -> Index:
  """Take what an earlier call has written, or begin as planned."""
  _check_destination(destination)
  if not (destination / PARTIAL).exists():
    write_index(destination, plan, PARTIAL)
    return plan
  begun = read_index(destination, PARTIAL)
  difference = _difference(begun, plan)
  if difference:
    raise UsageError(
      f"{destination}: was begun with other {difference}; go on with those, "
      "remove it, or choose another folder"
    )
  for where, reason in begun.skipped.items():
    skips.add(where, reason)
  return begun


def _difference(begun: Index, plan: Index) -> str:
  """Name what an earlier call had otherwise; "" if nothing."""
  for name in _SETTINGS:
    was, now = getattr(begun, name), getattr(plan, name)
    if was != now:
      return f"settings: {name} {was}, this has {now}"
  if not begun.origin or not plan.origin:
    return "data: an earlier version of podscale did not record which"
  place = f"data: {begun.origin.path}"
  for split, now in plan.origin.examples.items():
    was = begun.origin.examples.get(split)
    if was != now:
      return f"{place} had {was} {split} images, {plan.origin.path} has {now}"
    if begun.origin.listing.get(split) != plan.origin.listing[split]:
      return f"{place} had {split} files of other names or sizes"
  return ""


def _check_written(
  destination: Path, index: Index, splits: Splits, console: Console
) -> None:
  """Compare what an earlier call has written with the source.

  Data of the same names and counts may still be another version.
  """
  wanted = {split: _ranges(images, index) for split, images in splits.items()}
  if all(len(index.splits[s]) == len(wanted[s]) for s in splits):
    return  # stopped at the very end: some may have their final names
  shards = [
    (shard, splits[split], each)
    for split in splits
    for shard, each in zip(index.splits[split], wanted[split], strict=False)
    if shard.examples
  ]
  if not shards:
    return
  with Progress(console=console) as progress:
    for shard, images, each in progress.track(shards, description="comparing"):
      path = destination / shard.file
      try:
        written = ArrayRecordImages([path], index.num_classes)
      except UsageError as error:
        raise UsageError(f"{error}; {_cure(destination)}") from None
      if len(written) != shard.examples or not _is_part(written, images, each):
        raise UsageError(
          f"{path}: was written from other images than {images.where(each[0])}"
          f" and those behind it; {_cure(destination)}"
        )


def _cure(destination: Path) -> str:
  return f"remove {destination} or choose another folder"


def _is_part(
  written: EncodedImages, images: EncodedImages, each: range
) -> bool:
  """Tell whether a shard has a range's images in order, less some left out."""
  source = (_read(images, i) for i in each)
  records = (_read(written, i) for i in range(len(written)))
  return all(record and record in source for record in records)


def _read(images: EncodedImages, index: int) -> tuple[bytes, int] | None:
  try:
    return images.checked(index)
  except BadExampleError:
    return None


def _ranges(images: EncodedImages, index: Index) -> list[range]:
  """Cut the examples of a split into shards."""
  size = index.examples_per_shard
  everything = range(len(images))
  return [everything[i : i + size] for i in everything[::size]]


def _name(split: Split, number: int, count: int) -> str:
  return f"{SPLIT_NAMES[split]}-{number:05d}-of-{count:05d}.array_record"


def _write_shard(
  path: Path, images: EncodedImages, wanted: range, strict: bool, skips: Skips
) -> Shard:
  """Write a shard, or no file if all of its examples are left out."""
  beside = path.with_name(path.name + ".tmp")
  try:
    count = write_array_record(beside, _records(images, wanted, strict, skips))
    if not count:
      return Shard(path.name, 0, 0, "")
    shard = Shard(path.name, count, beside.stat().st_size, sha256(beside))
    beside.replace(path)
    return shard
  finally:
    beside.unlink(missing_ok=True)


def _records(
  images: EncodedImages, wanted: range, strict: bool, skips: Skips
) -> Iterator[bytes]:
  decoding = Decoding(strict=strict)

  def record(index: int) -> bytes | None:
    try:
      file, label = images.checked(index)
      Picture(file, decoding).decode(_SMALLEST)
      return write_image(file, label)
    except BadExampleError as error:
      skips.add(images.where(index), error)
      return None

  return (made for made in map_in_threads(record, wanted) if made is not None)


def _finish(destination: Path, index: Index) -> Index:
  """Number the shards that have examples and write the index."""
  splits = {}
  for split, shards in index.splits.items():
    full = [shard for shard in shards if shard.examples]
    splits[split] = [
      dataclasses.replace(shard, file=_name(split, number, len(full)))
      for number, shard in enumerate(full)
    ]
    for old, new in zip(full, splits[split], strict=True):
      if (destination / old.file).exists():  # else an earlier call renamed it
        (destination / old.file).replace(destination / new.file)
  whole = dataclasses.replace(index, splits=splits)
  write_index(destination, whole)
  (destination / PARTIAL).unlink()
  return whole
