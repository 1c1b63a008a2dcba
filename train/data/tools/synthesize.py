"""A synthetic ImageNet of JPEG files, for tests and benchmarks.

The same arguments give the same files, with one version of the JPEG encoder.
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
from ..images.shard_names import SHARD_PREFIXES, SPLIT_FOLDERS
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
"""Largest value of each argument of `synthesize`. With larger numbers, names
would sort in another order than numbers; libjpeg writes no larger images."""

_STREAMS: dict[Split, int] = {"train": 0, "test": 1}
_PATTERNS = 2
_OCTAVES = (3, 6, 12, 24, 48, 96)  # cells each way
_GRAIN = 36.0  # in levels of 256, from end to end
_QUALITY = 90


class SyntheticImage(NamedTuple):
  """One image file of a data set.

  Attributes:
    name: Name of the file, without folder or suffix.
    jpeg: Bytes of the file.
    label: Class, from 0.
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
  """Make a JPEG file of clouds in the colours of its class, under grain.

  At 500 by 375 pixels it has about 100 kB, like ImageNet's files.

  Args:
    index: Index of the image in its split.
    label: Class of the image; each class has its own pattern of colours.
    width: Width in pixels.
    height: Height in pixels.
    split: Split; the splits have different images of the same classes.

  Returns:
    Bytes of the file.

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


def synthetic_images(
  count: int, split: Split, *, classes: int, width: int, height: int
) -> Iterator[SyntheticImage]:
  """Yield `count` images, with all classes in turn."""
  for index in range(count):
    label = index % classes
    jpeg = synthetic_jpeg(index, label, width=width, height=height, split=split)
    yield SyntheticImage(f"{index:08d}", jpeg, label)


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
  """Write a data set that `open_images` reads.

  Args:
    folder: Folder to write to, new or empty.
    layout: Format: "folder" writes a file for each image, the others shards.
    examples: Number of images of each split.
    classes: Number of classes.
    shards: Number of shards of each split.
    width: Width of the images, in pixels.
    height: Height of the images, in pixels.

  Raises:
    UsageError: The folder is not empty or cannot be created, the images are too
      large, or there are fewer images than shards or class folders.
  """
  if width * height > MOST_PIXELS:
    raise UsageError(
      f"{width} x {height} pixels are more than the {MOST_PIXELS:,} that "
      "podscale reads; lower --width or --height"
    )
  if layout == "folder" and classes > examples["train"]:
    raise UsageError(
      f"{classes} class folders need at least as many training images, got "
      f"{examples['train']}"
    )
  for split, count in examples.items():
    if layout != "folder" and shards > count:
      raise UsageError(
        f"{shards} shards need at least as many {split} images, got {count}"
      )
  make_new_folder(folder)
  for split, count in examples.items():
    images = synthetic_images(
      count, split, classes=classes, width=width, height=height
    )
    if layout == "folder":
      _write_files(folder / SPLIT_FOLDERS[split], images)
      continue
    for shard in range(shards):
      size = count * (shard + 1) // shards - count * shard // shards
      path = folder / _SHARD_NAMES[layout].format(
        split=SHARD_PREFIXES[split], shard=shard, shards=shards
      )
      _WRITERS[layout](path, itertools.islice(images, size))


def _write_files(folder: Path, images: Iterable[SyntheticImage]) -> None:
  for name, jpeg, label in images:
    path = folder / f"class-{label:04d}" / f"{name}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg)


def _write_array_record(path: Path, images: Iterable[SyntheticImage]) -> None:
  write_array_record(path, (write_image(p.jpeg, p.label) for p in images))


def _write_tfrecord(path: Path, images: Iterable[SyntheticImage]) -> None:
  """Write a shard with the features of imagenet_to_gcs, labels from 1."""
  write_tfrecord(
    path,
    (
      write_features(
        {"image/encoded": p.jpeg, "image/class/label": p.label + 1}
      )
      for p in images
    ),
  )


def _write_tar(path: Path, images: Iterable[SyntheticImage]) -> None:
  with tarfile.open(path, "w") as tar:
    for name, jpeg, label in images:
      for suffix, data in (("jpg", jpeg), ("cls", str(label).encode())):
        member = tarfile.TarInfo(f"{name}.{suffix}")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))


_WRITERS: dict[Layout, Callable[[Path, Iterable[SyntheticImage]], None]] = {
  "array-record": _write_array_record,
  "tar": _write_tar,
  "tfrecord": _write_tfrecord,
}


def _enlarged(cells: np.ndarray, width: int, height: int) -> np.ndarray:
  return cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)


def _uniform(stream: int, index: int, shape: tuple[int, ...]) -> np.ndarray:
  return _floats(np.random.Philox(key=[index, stream]), shape)


def _floats(random: np.random.Philox, shape: tuple[int, ...]) -> np.ndarray:
  """Draw float32 numbers in [0, 1), four from each 64-bit number."""
  size = math.prod(shape)
  raw = random.random_raw(-(-size // 4)).view(np.uint16)[:size]
  return raw.reshape(shape).astype(np.float32) / 2**16
