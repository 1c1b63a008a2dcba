"""Conversion of a data set to ArrayRecord shards with an index."""

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
  INDEX_FILE,
  PARTIAL_INDEX_FILE,
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
from ..images.shard_names import SHARD_PREFIXES
from ..loading.bad_examples import Skips
from ..loading.parallel import map_in_threads
from ..source import (
  SPLITS,
  BadExampleError,
  Decoding,
  Split,
  check_same_classes,
)
from .new_folder import check_new_folder

_REDUCTION = 8  # the largest, as the pixels are not used

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
  """Write both splits of a data set as ArrayRecord; decode each image once.

  After an interruption, the same call continues behind the last whole shard.

  Args:
    source: Folder that `open_images` reads.
    destination: New folder, or the folder of an unfinished conversion.
    num_classes: Number of classes; None takes the number in the data, or 1000
      if the data has none.
    label_offset: Label of the first class in shards and label files; None takes
      the default of the format. Written labels start at 0.
    examples_per_shard: Examples of the source for each shard, before bad ones
      are skipped; the last shard of a split may have fewer.
    strict_jpeg: True to refuse every JPEG that libjpeg warns about; False to
      write every JPEG that training accepts.
    skips: Collects the images that cannot be decoded, which are skipped.
    console: Console for the progress.

  Returns:
    The index.

  Raises:
    UsageError: The source cannot be used, a label is outside the classes, the
      destination holds other files or a conversion of other data, too many
      images are bad, or all images of a split are.
  """
  _check_destination(destination)  # before reading the source, which is slow
  splits = {
    split: open_images(source, split, num_classes, label_offset=label_offset)
    for split in SPLITS
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
  """Refuse a finished conversion, and a folder with other files."""
  if (destination / INDEX_FILE).exists():
    raise UsageError(
      f"{destination}: already holds a converted data set; choose another "
      "folder, or remove this one"
    )
  if not (destination / PARTIAL_INDEX_FILE).exists():
    check_new_folder(destination)


@contextlib.contextmanager
def _alone(destination: Path) -> Iterator[None]:
  """Lock a folder against other conversions, if its disk has locks."""
  folder = os.open(destination, os.O_RDONLY)
  try:
    try:
      fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise UsageError(
        f"{destination}: another conversion writes to this folder; wait until "
        "it ends, or choose another folder"
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
  """Write the missing shards, and record each in the partial index."""
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
          write_index(destination, index, PARTIAL_INDEX_FILE)
        progress.advance(bar, len(each))
      if not index.examples(split):
        raise UsageError(
          f"all {len(images)} {split} images are bad; remove {destination}, "
          "and convert other images"
        )


def _begin(destination: Path, plan: Index, skips: Skips) -> Index:
  """Continue an unfinished conversion, or begin the planned one."""
  _check_destination(destination)
  if not (destination / PARTIAL_INDEX_FILE).exists():
    write_index(destination, plan, PARTIAL_INDEX_FILE)
    return plan
  begun = read_index(destination, PARTIAL_INDEX_FILE)
  difference = _difference(begun, plan)
  if difference:
    raise UsageError(
      f"{destination}: was begun with other {difference}; continue with those, "
      "remove this folder, or choose another folder"
    )
  for where, reason in begun.skipped.items():
    skips.add(where, reason)
  return begun


def _difference(begun: Index, plan: Index) -> str:
  """Describe the first difference to an unfinished conversion; "" if none."""
  for name in _SETTINGS:
    was, now = getattr(begun, name), getattr(plan, name)
    if was != now:
      return f"settings: {name} {was}, now {now}"
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
  """Compare the shards of an unfinished conversion with the source.

  Data with the same names and counts may still be another version.
  """
  wanted = {split: _ranges(images, index) for split, images in splits.items()}
  if all(len(index.splits[s]) == len(wanted[s]) for s in splits):
    return  # stopped at the very end: some shards may have their final names
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
          f" and following; {_cure(destination)}"
        )


def _cure(destination: Path) -> str:
  return f"remove {destination} or choose another folder"


def _is_part(
  written: EncodedImages, images: EncodedImages, each: range
) -> bool:
  """Test if a shard has the images of a range in order; some may be skipped."""
  source = (_read(images, i) for i in each)
  records = (_read(written, i) for i in range(len(written)))
  return all(record and record in source for record in records)


def _read(images: EncodedImages, index: int) -> tuple[bytes, int] | None:
  try:
    return images.checked(index)
  except BadExampleError:
    return None


def _ranges(images: EncodedImages, index: Index) -> list[range]:
  """Divide the examples of a split into shards."""
  size = index.examples_per_shard
  everything = range(len(images))
  return [everything[i : i + size] for i in everything[::size]]


def _name(split: Split, number: int, count: int) -> str:
  return f"{SHARD_PREFIXES[split]}-{number:05d}-of-{count:05d}.array_record"


def _write_shard(
  path: Path, images: EncodedImages, wanted: range, strict: bool, skips: Skips
) -> Shard:
  """Write a shard; no file if all of its examples are skipped."""
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
      Picture(file, decoding).decode(_REDUCTION)
      return write_image(file, label)
    except BadExampleError as error:
      skips.add(images.where(index), error)
      return None

  return (made for made in map_in_threads(record, wanted) if made is not None)


def _finish(destination: Path, index: Index) -> Index:
  """Rename the shards that have examples, and write the index."""
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
  (destination / PARTIAL_INDEX_FILE).unlink()
  return whole
