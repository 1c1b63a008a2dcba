"""A made-up ImageNet of real JPEG files, for tests and benchmarks.

The same count, size and seed of NumPy's Philox give the same files, with one
version of the JPEG encoder.
"""

import io
import itertools
import math
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np

from ...errors import UsageError
from ..decoding.picture import MOST_PIXELS
from ..images.readers.array_record import write_array_record
from ..images.readers.example_proto import write_features, write_image
from ..images.readers.tfrecord import write_tfrecord
from ..images.shard_names import FOLDERS, SPLIT_NAMES
from ..source import Split
from .new_folder import make_new_folder

Layout = Literal["array-record", "folder", "tar", "tfrecord"]

_SHARD_NAMES: dict[Layout, str] = {
  "array-record": "{split}-{shard:05d}-of-{shards:05d}.array_record",
  "tar": "{split}-{shard:06d}.tar",
  "tfrecord": "{split}-{shard:05d}-of-{shards:05d}",
}
LIMITS = {
  "train": 10**8 - 1,
  "test": 10**8 - 1,
  "classes": 10_000,
  "shards": 99_999,
  "width": 65_500,
  "height": 65_500,
}
"""The most of each argument of `synthesize`: beyond these, names would sort in
another order than numbers, and libjpeg writes no larger images."""

_STREAMS: dict[Split, int] = {"train": 0, "test": 1}
_PATTERNS = 2
_OCTAVES = (3, 6, 12, 24, 48, 96)  # cells each way
_GRAIN = 36.0  # in levels of 256, from end to end
_QUALITY = 90


class Picture(NamedTuple):
  """One file of a data set.

  Attributes:
    name: Of the file, without folder or suffix.
    jpeg: The file.
    label: From 0.
  """

  name: str
  jpeg: bytes
  label: int


def synthetic_jpeg(
  index: int,
  label: int,
  *,
  width: int = 500,
  height: int = 375,
  split: Split = "train",
) -> bytes:
  """A JPEG file of clouds in the colours of its class, under grain.

  At 500 by 375 pixels it has about 100 kB, as ImageNet's have.

  Args:
    index: Of the picture in its split.
    label: Its class, which has a pattern of colours of its own.
    width: In pixels.
    height: In pixels.
    split: Another has other pictures of the same classes.

  >>> jpeg = synthetic_jpeg(0, 3)
  >>> jpeg == synthetic_jpeg(0, 3), 80_000 < len(jpeg) < 120_000
  (True, True)
  """
  import simplejpeg

  image = _enlarged(_uniform(_PATTERNS, label, (4, 4, 3)), width, height)
  random = np.random.Philox(key=[index, _STREAMS[split]])
  for cells in _OCTAVES:
    clouds = _floats(random, (cells, cells, 3)) - 0.5
    image += _enlarged(clouds, width, height) * (2 / cells) ** 0.5
  grain = _floats(random, (height, width, 1)) - 0.5
  pixels = np.clip(64 + 128 * image + _GRAIN * grain, 0, 255).astype(np.uint8)
  return simplejpeg.encode_jpeg(pixels, quality=_QUALITY)


def synthetic_pictures(
  count: int, split: Split, *, classes: int, width: int, height: int
) -> Iterator[Picture]:
  """`count` pictures, of all classes in turn."""
  for index in range(count):
    label = index % classes
    jpeg = synthetic_jpeg(index, label, width=width, height=height, split=split)
    yield Picture(f"{index:08d}", jpeg, label)


def synthesize(
  folder: Path,
  layout: Layout,
  *,
  examples: dict[Split, int],
  classes: int = 10,
  shards: int = 2,
  width: int = 500,
  height: int = 375,
) -> None:
  """Write a data set as `open_images` reads it.

  Args:
    folder: Where to; made if it is not there, else it is empty.
    layout: "folder" has a file for each picture, the others have shards.
    examples: How many in each split.
    classes: Number of classes.
    shards: Of each split.
    width: Of the pictures, in pixels.
    height: Of the pictures, in pixels.

  Raises:
    UsageError: the folder is not empty or cannot be made, the pictures are too
      large, or there are fewer of them than shards or class folders.
  """
  if width * height > MOST_PIXELS:
    raise UsageError(
      f"{width} x {height} pixels are more than the {MOST_PIXELS:,} that are "
      "read"
    )
  if layout == "folder" and classes > examples["train"]:
    raise UsageError(
      f"{classes} class folders need as many training images, got "
      f"{examples['train']}"
    )
  for split, count in examples.items():
    if layout != "folder" and shards > count:
      raise UsageError(
        f"{shards} shards need as many {split} images, got {count}"
      )
  make_new_folder(folder)
  for split, count in examples.items():
    pictures = synthetic_pictures(
      count, split, classes=classes, width=width, height=height
    )
    if layout == "folder":
      _write_files(folder / FOLDERS[split], pictures)
      continue
    for shard in range(shards):
      size = count * (shard + 1) // shards - count * shard // shards
      path = folder / _SHARD_NAMES[layout].format(
        split=SPLIT_NAMES[split], shard=shard, shards=shards
      )
      _WRITERS[layout](path, itertools.islice(pictures, size))


def _write_files(folder: Path, pictures: Iterable[Picture]) -> None:
  for name, jpeg, label in pictures:
    path = folder / f"class-{label:04d}" / f"{name}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg)


def _write_array_record(path: Path, pictures: Iterable[Picture]) -> None:
  write_array_record(path, (write_image(p.jpeg, p.label) for p in pictures))


def _write_tfrecord(path: Path, pictures: Iterable[Picture]) -> None:
  """With the names and labels from 1 of imagenet_to_gcs."""
  write_tfrecord(
    path,
    (
      write_features(
        {"image/encoded": p.jpeg, "image/class/label": p.label + 1}
      )
      for p in pictures
    ),
  )


def _write_tar(path: Path, pictures: Iterable[Picture]) -> None:
  with tarfile.open(path, "w") as tar:
    for name, jpeg, label in pictures:
      for suffix, data in (("jpg", jpeg), ("cls", str(label).encode())):
        member = tarfile.TarInfo(f"{name}.{suffix}")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))


_WRITERS: dict[Layout, Callable[[Path, Iterable[Picture]], None]] = {
  "array-record": _write_array_record,
  "tar": _write_tar,
  "tfrecord": _write_tfrecord,
}


def _enlarged(cells: np.ndarray, width: int, height: int) -> np.ndarray:
  return cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)


def _uniform(stream: int, index: int, shape: tuple[int, ...]) -> np.ndarray:
  return _floats(np.random.Philox(key=[index, stream]), shape)


def _floats(random: np.random.Philox, shape: tuple[int, ...]) -> np.ndarray:
  """float32 in [0, 1), four of each number drawn."""
  size = math.prod(shape)
  raw = random.random_raw(-(-size // 4)).view(np.uint16)[:size]
  return raw.reshape(shape).astype(np.float32) / 2**16
