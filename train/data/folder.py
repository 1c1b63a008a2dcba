"""A folder of image files: train/CLASS/*.jpg and val/CLASS/*.jpg."""

import os
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from ..errors import UsageError
from .source import (
  IMAGENET_MEAN,
  IMAGENET_STD,
  Example,
  Split,
  example_count,
)

_FOLDERS: dict[Split, str] = {"train": "train", "test": "val"}
_SUFFIXES = (".jpg", ".jpeg", ".png")
_JPEG_START = b"\xff\xd8"


class ImageFolder:
  """JPEG and PNG files, one folder for each class; decoded when asked for.

  The classes are the sorted names of the folders in train/; val/ may lack some
  of them. The examples are one of each class, then the next of each, so that
  the first few are of all classes. Files and folders whose name starts with a
  dot are left out.

  Evaluation cuts the centre with a padding of 32 pixels, as the paper-era
  EfficientNet does.
  """

  mean = IMAGENET_MEAN
  std = IMAGENET_STD
  eval_padding = 32

  def __init__(self, path: str, split: Split, examples: int | None = None):
    """Look for the images in `path`; None for `examples` takes them all.

    Raises:
      UsageError: a folder is missing or empty, holds other files, or val/ has
        classes that train/ has not; or there are fewer examples.
    """
    names = tuple(_classes(Path(path, "train")))
    self.class_names: tuple[str, ...] | None = names
    self.num_classes = len(names)
    folder = Path(path, _FOLDERS[split])
    self._files = _files(folder, names)
    count = example_count(examples, len(self._files), folder)
    self._files = self._files[:count]

  def __len__(self) -> int:
    return len(self._files)

  def __getitem__(self, index: int) -> Example:
    path, label = self._files[index]
    return {"image": _decode(path), "label": label}


def _classes(folder: Path) -> list[str]:
  try:
    with os.scandir(folder) as entries:
      names = [e.name for e in entries if e.is_dir() and e.name[0] != "."]
  except OSError as error:
    raise UsageError(
      f"{folder}: {error.strerror}; the folder source reads train/CLASS/*.jpg "
      "and val/CLASS/*.jpg under data.path"
    ) from None
  if not names:
    raise UsageError(f"{folder}: no class folders in it")
  return sorted(names)


def _files(folder: Path, class_names: tuple[str, ...]) -> list[tuple[str, int]]:
  labels = {name: label for label, name in enumerate(class_names)}
  ranked = []
  for name in _classes(folder):
    if name not in labels:
      raise UsageError(
        f"{folder / name}: class {name!r} is not among the "
        f"{len(labels)} classes in train/"
      )
    for rank, path in enumerate(_images(folder / name)):
      ranked.append((rank, labels[name], path))
  return [(path, label) for rank, label, path in sorted(ranked)]


def _images(folder: Path) -> list[str]:
  names = sorted(name for name in os.listdir(folder) if name[0] != ".")
  for name in names:
    if not name.lower().endswith(_SUFFIXES):
      raise UsageError(f"{folder / name}: not one of {', '.join(_SUFFIXES)}")
  if not names:
    raise UsageError(f"{folder}: no images in it")
  return [os.path.join(folder, name) for name in names]


def _decode(path: str) -> np.ndarray:
  # By content, not by name: ImageNet has a PNG that is called .JPEG.
  try:
    data = Path(path).read_bytes()
    # Not simplejpeg.is_jpeg, which wants the end of the file to be right, too.
    if data.startswith(_JPEG_START):
      return simplejpeg.decode_jpeg(data, colorspace="RGB")
    # Not turned by EXIF, as simplejpeg does not turn either.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    bytes_in = np.frombuffer(data, np.uint8)
    image = cv2.imdecode(bytes_in, flags) if data else None
  except (OSError, ValueError, cv2.error) as error:
    reason = " ".join(str(error).split())
    raise UsageError(f"{path}: cannot read the image: {reason}") from None
  if image is None:
    raise UsageError(f"{path}: neither a JPEG nor a whole PNG file")
  return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
