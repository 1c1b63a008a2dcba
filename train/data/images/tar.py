"""Tar shards as WebDataset writes them: KEY.jpg and KEY.cls side by side."""

import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ...errors import UsageError
from .encoded import read_file
from .sharded import ShardedImages

_IMAGES = ("jpg", "jpeg", "png")
_LABEL = "cls"


class _Sample(NamedTuple):
  """Where an image's file is in the shard, and its label."""

  offset: int
  length: int
  label: int


class TarImages(ShardedImages):
  """The images of tar shards, read in place: nothing is unpacked to disk.

  A sample is the members whose names are alike up to the last part's first dot:
  one ending in .jpg, .jpeg or .png, and one in .cls, the label from 0 in
  decimal. Others are left out.
  """

  def __init__(self, shards: Sequence[Path], num_classes: int):
    """Find the samples.

    Raises:
      UsageError: a shard cannot be read, is empty, or has half a sample.
    """
    self._samples = [_samples(shard) for shard in shards]
    super().__init__(shards, [len(s) for s in self._samples], num_classes)

  def read_record(self, shard: int, record: int) -> tuple[bytes, int]:
    """The file and the label of a sample."""
    offset, length, label = self._samples[shard][record]
    return read_file(self.shards[shard], offset, length), label


def _samples(shard: Path) -> list[_Sample]:
  images: dict[str, tuple[int, int]] = {}
  labels: dict[str, int] = {}
  try:
    # "r:" is without decompression: a member of a packed one has no place.
    with tarfile.open(shard, "r:") as tar:
      for member in tar:
        folder, _, name = member.name.rpartition("/")
        stem, _, suffix = name.partition(".")
        if not member.isfile():
          continue
        key = f"{folder}/{stem}"
        if suffix.lower() in _IMAGES:
          images[key] = member.offset_data, member.size
        elif suffix == _LABEL:
          labels[key] = _label(shard, tar, member)
  except tarfile.TarError as error:
    raise UsageError(
      f"{shard}: not a tar file that is whole and not compressed: {error}"
    ) from None
  except OSError as error:
    raise UsageError(f"{shard}: {error.strerror}") from None
  for key in images.keys() ^ labels.keys():
    lacks = "image" if key in labels else f".{_LABEL}"
    raise UsageError(f"{shard}: sample {key.strip('/')} has no {lacks}")
  if not images:
    raise UsageError(f"{shard}: no images in it")
  return [_Sample(*place, labels[key]) for key, place in images.items()]


def _label(shard: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> int:
  file = tar.extractfile(member)
  text = file.read(32) if file else b""
  try:
    return int(text)
  except ValueError:
    raise UsageError(
      f"{shard}: {member.name} has {text!r} where a label should be"
    ) from None
