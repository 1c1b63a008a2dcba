"""Tar shards as WebDataset writes them: KEY.jpg beside KEY.cls."""

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
# Zeros pad an archive to a whole number of records. This is the default size of
# a record; tar --blocking-factor sets other sizes.
_RECORD = tarfile.RECORDSIZE
_OTHER_RECORDS = [2**n for n in range(14, 21)]
_LONGEST_LABEL = 32
_MOST_READ = 2**20  # bytes of a label, a JSON file or a long name


class Sample(NamedTuple):
  """The place of an image file in a shard, and its label.

  Attributes:
    offset: Offset of the image file in the shard, in bytes.
    length: Size of the image file, in bytes.
    label: Label in the data set.
  """

  offset: int
  length: int
  label: int


class TarImages(ShardedImages):
  """The images of tar shards, read without unpacking.

  The members of a sample have equal paths up to the first dot of the file name:
  an image, known by its suffix, and a label from 0. The label is the number in
  a .cls member, or the "label" of the object in a .json member. Other members
  are ignored.
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
      UsageError: A shard cannot be read, is empty, damaged or cut short, or has
        an incomplete or a repeated sample.
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
    """Yield the labels in order; the constructor has read them."""
    samples = itertools.chain.from_iterable(self._samples)
    for example, sample in enumerate(itertools.islice(samples, len(self))):
      yield StoredLabel(example, sample.label)


@dataclasses.dataclass(slots=True)
class _Parts:
  """The members of one sample found so far."""

  image: tuple[int, int] | None = None  # offset and length
  label: int | None = None
  has_json: bool = False
  json_label: int | None = None


def find_samples(shard: Path) -> list[Sample]:
  """Find the samples of a tar file, in the order of their first members.

  Python's tarfile takes a damaged header for the end of the archive. So the
  place where it stopped is compared with an archive's end: two zero blocks,
  then only zeros that pad a record.

  Raises:
    UsageError: The file cannot be read, is damaged or cut short, holds links or
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
    raise UsageError(
      f"{shard}: has no images; give tar shards of KEY.jpg and KEY.cls"
    )
  return found


def _members(
  shard: Path, reader: "_BoundedReader"
) -> Iterator[tarfile.TarInfo]:
  """Yield the members of an archive, and check that it ends behind the last.

  Raises:
    UsageError: The archive is damaged, cut short or no tar file.
  """
  tar: Any = None
  try:
    tar = tarfile.TarFile(fileobj=cast(Any, reader), mode="r")
    at = 0
    while member := tar.next():
      if member.size < 0 or tar.offset <= at:
        raise ValueError("its size is negative")
      at = tar.offset
      tar.members.clear()  # tarfile would keep all of them in memory
      yield member
  except tarfile.TarError as error:
    if tar is None:
      raise wrong_format(shard, "a tar file") from None
    raise UsageError(f"{shard}, byte {tar.offset}: {error}") from None
  # tarfile raises these for some damaged headers.
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
    ValueError: The member is a link or sparse, or the sample already has one.
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
  """Combine the members of a key; None for a JSON file on its own.

  Raises:
    ValueError: The image or the label is missing, or there are two labels.
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
      f"sample {key} has no label: neither a .{_LABEL}, nor a .{_JSON} whose "
      '"label" is an integer'
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
    raise ValueError(f"{member.name} has {text!r}, expected a label")
  return int(text)


def _read_json_label(
  member: tarfile.TarInfo, reader: "_BoundedReader"
) -> int | None:
  """Read the label from a JSON file; None if it has none."""
  if member.size > _MOST_READ:
    return None
  reader.seek(member.offset_data)
  try:
    label = json.loads(reader.read(member.size))["label"]
  except (LookupError, TypeError, ValueError, RecursionError):
    return None
  return label if type(label) is int else None


def _check_end(shard: Path, file: "_BoundedReader", at: int) -> None:
  """Check that an archive's end follows the last member."""
  file.seek(at)
  block = file.read(_BLOCK)
  if len(block) == _BLOCK and not _is_zero(block):
    raise UsageError(
      f"{shard}, byte {at}: the header of a member is damaged, so no later "
      "member can be found; copy or download the shard again"
    )
  if len(block + file.read(_BLOCK)) < 2 * _BLOCK:
    raise UsageError(
      f"{shard}, byte {at}: the file ends without an archive's two zero "
      "blocks: it was cut short, or its writer was not closed; copy or write "
      "it again"
    )
  file.seek(at)
  end = at
  while rest := file.read(_MOST_READ):
    if not _is_zero(rest):
      raise UsageError(
        f"{shard}, byte {at}: data follow the end of the archive: archives "
        "were joined, or the file is damaged; write a new archive"
      )
    at += len(rest)
  filling = at - end - 2 * _BLOCK
  if filling >= _RECORD and not any(
    filling < record and at % record == 0 for record in _OTHER_RECORDS
  ):
    raise UsageError(
      f"{shard}, byte {end}: the last {at - end:,} bytes are zeros, more than "
      "an archive's padding: a copy has stopped there; copy or download it "
      "again"
    )


def _is_zero(data: bytes) -> bool:
  return data.count(0) == len(data)


class _BoundedReader:
  """A file with bounds for tarfile, which trusts every length in a header."""

  def __init__(self, file: BinaryIO):
    self._file = file
    self._size = file.seek(0, os.SEEK_END)
    file.seek(0)
    self.tell = file.tell

  def read(self, size: int) -> bytes:
    if not 0 <= size <= _MOST_READ:
      raise tarfile.ReadError(f"a header has a name of {size} bytes")
    return self._file.read(size)

  def seek(self, offset: int) -> None:
    if not 0 <= offset <= self._size:
      raise tarfile.ReadError(
        "the file ends within the last member: it was cut short; copy or "
        "download it again"
      )
    self._file.seek(offset)
