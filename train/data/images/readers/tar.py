"""Tar shards as WebDataset writes them: KEY.jpg and KEY.cls side by side."""

import dataclasses
import itertools
import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from ....errors import UsageError, one_line
from ...file_formats import wrong_format
from .encoded import (
  IMAGE_SUFFIXES,
  StoredImage,
  StoredLabel,
  read_file,
)
from .sharded import ShardedImages, open_shard

_IMAGES = tuple(suffix[1:] for suffix in IMAGE_SUFFIXES)
_LABEL = "cls"
_JSON = "json"
_BLOCK = tarfile.BLOCKSIZE
# Archives are filled up with zeros to a whole number of records, whose size is
# this one or what tar --blocking-factor asks for.
_RECORD = tarfile.RECORDSIZE
_OTHER_RECORDS = [2**n for n in range(14, 21)]
_LONGEST_LABEL = 32
_MOST_READ = 2**20  # of a label, a JSON file or a long name


class Sample(NamedTuple):
  """Where an image's file is in the shard, and its label.

  Attributes:
    offset: First byte of the image file in the shard.
    length: Number of its bytes.
    label: Number in the data set.
  """

  offset: int
  length: int
  label: int


class TarImages(ShardedImages):
  """The images of tar shards, read in place: nothing is unpacked to disk.

  A sample is the members whose names are alike up to the last part's first dot:
  an image, known by its suffix, and its label from 0: a member ending in .cls,
  which holds the number, or in .json, an object whose "label" is the number.
  Others are left out.
  """

  def __init__(
    self,
    shards: Sequence[Path],
    num_classes: int,
    *,
    label_offset: int | None = None,
  ):
    """Find the samples.

    Raises:
      UsageError: a shard cannot be read, is empty, damaged or cut short, or has
        half a sample, or two of one key.
    """
    self._samples = [find_samples(shard) for shard in shards]
    super().__init__(
      shards,
      [len(samples) for samples in self._samples],
      num_classes,
      label_offset=label_offset,
    )

  def read_record(self, shard: int, record: int) -> StoredImage:
    """Read the file and the label of a sample."""
    offset, length, label = self._samples[shard][record]
    return StoredImage(read_file(self.shards[shard], offset, length), label)

  def labels(self) -> Iterator[StoredLabel]:
    """Yield the labels in order, which opening has read."""
    samples = itertools.chain.from_iterable(self._samples)
    for example, sample in enumerate(itertools.islice(samples, len(self))):
      yield StoredLabel(example, sample.label)


@dataclasses.dataclass(slots=True)
class _Parts:
  """The members of one sample that were found so far."""

  image: tuple[int, int] | None = None  # offset and length
  label: int | None = None
  has_json: bool = False
  json_label: int | None = None


def find_samples(shard: Path) -> list[Sample]:
  """Find the samples of a tar file, in the order of their first members.

  Python's tarfile takes a damaged header for the end of the archive. So what
  stands where it stopped is compared with an archive's end: two zero blocks and
  nothing but zeros behind them, which fill up a record.

  Raises:
    UsageError: the file cannot be read, is damaged or cut short, holds links or
      sparse members, or a sample that is not an image and a label.
  """
  samples: dict[str, _Parts] = {}
  with open_shard(shard) as file:
    reader = _BoundedReader(file)
    for member in _members(shard, reader):
      try:
        _add(samples, member, reader)
      except (ValueError, tarfile.TarError) as error:
        raise UsageError(f"{shard}: {one_line(error)}") from None
  try:
    made = (_sample(key, parts) for key, parts in samples.items())
    found = [sample for sample in made if sample]
  except ValueError as error:
    raise UsageError(f"{shard}: {one_line(error)}") from None
  if not found:
    raise UsageError(f"{shard}: no images in it")
  return found


def _members(
  shard: Path, reader: "_BoundedReader"
) -> Iterator[tarfile.TarInfo]:
  """Yield the members of an archive, and check that it ends behind the last.

  Raises:
    UsageError: it is damaged, cut short or no tar file.
  """
  tar: Any = None
  try:
    tar = tarfile.TarFile(fileobj=cast(Any, reader), mode="r")
    at = 0
    while member := tar.next():
      if member.size < 0 or tar.offset <= at:
        raise ValueError("its size is negative")
      at = tar.offset
      tar.members.clear()  # it keeps all of them
      yield member
  except tarfile.TarError as error:
    if tar is None:
      raise wrong_format(shard, "a tar file") from None
    raise UsageError(f"{shard}, byte {tar.offset}: {error}") from None
  # What tarfile raises for some damaged headers.
  except (ArithmeticError, LookupError, RecursionError, ValueError) as error:
    raise UsageError(
      f"{shard}, byte {tar.offset if tar else 0}: the header of a member is "
      f"damaged: {one_line(error)}"
    ) from None
  _check_end(shard, reader, tar.offset)


def _add(
  samples: dict[str, _Parts], member: tarfile.TarInfo, reader: "_BoundedReader"
) -> None:
  """Add a member to its sample.

  Raises:
    ValueError: it is a link or sparse, or the sample has it already.
  """
  if member.issparse():
    raise ValueError(
      f"{member.name}: sparse tar entries are not supported; write the archive "
      "without --sparse"
    )
  folder, slash, name = member.name.rpartition("/")
  stem, _, suffix = name.partition(".")
  suffix = suffix.lower()
  if suffix not in (*_IMAGES, _LABEL, _JSON) or not stem or member.isdir():
    return
  if not member.isreg():
    raise ValueError(
      f"{member.name}: is a link or a device; write the archive with the files "
      "themselves (tar --dereference --hard-dereference)"
    )
  key = folder + slash + stem
  parts = samples.setdefault(key, _Parts())
  if suffix in _IMAGES:
    _refuse_second(key, member, parts.image)
    parts.image = member.offset_data, member.size
  elif suffix == _LABEL:
    _refuse_second(key, member, parts.label)
    parts.label = _read_label(member, reader)
  else:
    _refuse_second(key, member, parts.has_json or None)
    parts.has_json = True
    parts.json_label = _read_json_label(member, reader)


def _refuse_second(
  key: str, member: tarfile.TarInfo, first: object | None
) -> None:
  if first is not None:
    what = "image" if isinstance(first, tuple) else "label"
    raise ValueError(f"sample {key} has a second {what}, {member.name}")


def _sample(key: str, parts: _Parts) -> Sample | None:
  """Make the sample of a key; None where it is a JSON file of its own.

  Raises:
    ValueError: it lacks its image or label, or has two labels.
  """
  label, image = parts.label, parts.image
  if label is None:
    label = parts.json_label
  if image is None:
    if label is None:
      return None
    raise ValueError(f"sample {key} has no image")
  if label is None:
    raise ValueError(
      f"sample {key} has no .{_LABEL}, nor a .{_JSON} whose "
      '"label" is a whole number'
    )
  if parts.json_label not in (None, label):
    raise ValueError(
      f"sample {key} has label {label} in .{_LABEL} and {parts.json_label} in "
      f".{_JSON}"
    )
  return Sample(*image, label)


def _read_label(member: tarfile.TarInfo, reader: "_BoundedReader") -> int:
  reader.seek(member.offset_data)
  text = reader.read(min(member.size, _LONGEST_LABEL))
  if not re.fullmatch(rb"\s*-?\d+\s*", text) or len(text) < member.size:
    raise ValueError(f"{member.name} has {text!r} where a label should be")
  return int(text)


def _read_json_label(
  member: tarfile.TarInfo, reader: "_BoundedReader"
) -> int | None:
  """Read the label from a JSON file; None where it is something else."""
  if member.size > _MOST_READ:
    return None
  reader.seek(member.offset_data)
  try:
    label = json.loads(reader.read(member.size))["label"]
  except (LookupError, TypeError, ValueError, RecursionError):
    return None
  return label if type(label) is int else None


def _check_end(shard: Path, file: "_BoundedReader", at: int) -> None:
  """Compare what stands behind the last member with an archive's end."""
  file.seek(at)
  block = file.read(_BLOCK)
  if len(block) == _BLOCK and not _is_zero(block):
    raise UsageError(
      f"{shard}, byte {at}: the header of a member is damaged, so no later one "
      "can be found; copy or download the shard again"
    )
  if len(block + file.read(_BLOCK)) < 2 * _BLOCK:
    raise UsageError(
      f"{shard}, byte {at}: the file ends without the two zero blocks of an "
      "archive's end: it was cut short or its writer was not closed; copy or "
      "write it again"
    )
  file.seek(at)
  end = at
  while rest := file.read(_MOST_READ):
    if not _is_zero(rest):
      raise UsageError(
        f"{shard}, byte {at}: more data behind the end of the archive: "
        "archives were joined, or the file is damaged; write one archive anew"
      )
    at += len(rest)
  filling = at - end - 2 * _BLOCK
  if filling >= _RECORD and not any(
    filling < record and at % record == 0 for record in _OTHER_RECORDS
  ):
    raise UsageError(
      f"{shard}, byte {end}: the last {at - end:,} bytes are zeros, more than "
      "fill up an archive: a copy of it has stopped there; copy or download it "
      "again"
    )


def _is_zero(data: bytes) -> bool:
  return data.count(0) == len(data)


class _BoundedReader:
  """A file for tarfile, which believes any length that a header gives."""

  def __init__(self, file: BinaryIO):
    self._file = file
    self._size = file.seek(0, os.SEEK_END)
    file.seek(0)
    self.tell = file.tell

  def read(self, size: int) -> bytes:
    if not 0 <= size <= _MOST_READ:
      raise tarfile.ReadError(f"a header gives a name a length of {size} bytes")
    return self._file.read(size)

  def seek(self, offset: int) -> None:
    if not 0 <= offset <= self._size:
      raise tarfile.ReadError(
        "the file ends before the last member does: it was cut short; copy or "
        "download it again"
      )
    self._file.seek(offset)
