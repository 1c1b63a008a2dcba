"""Fashion-MNIST: grey photographs of clothes, 28x28 pixels, ten classes.

Xiao, Rasul, Vollgraf 2017, "Fashion-MNIST: a novel image dataset for
benchmarking machine learning algorithms", arXiv:1708.07747.
"""

import hashlib
import io
from pathlib import Path

import cv2
import numpy as np

from ...errors import UsageError
from ..source import (
  Decoding,
  Example,
  Split,
  example_count,
  hash_listing,
)
from .idx import read_idx

ARCHIVE = Path(__file__).with_name("fashion_mnist.npz")
"""Archive in the package: the first 10,000 training and 2,000 test images."""
ARCHIVE_SHA256 = (
  "c89840952bca868e3e6f42ecdbd5d4602d82d652c77befacbda195db3364166c"
)

_SIZE = 28
_BORDER = 2
_IDX_PREFIX: dict[Split, str] = {"train": "train", "test": "t10k"}


class FashionMnist:
  """A source of Fashion-MNIST's images, 32x32x3 with a black border.

  A border of two pixels enlarges them to 32x32, as for MNIST in LeNet-5 (LeCun
  et al. 1998, section II.B), because 32 halves five times. The grey channel is
  repeated, so the network is the same as for colour photographs.

  Mean and standard deviation come from the 60,000 training images at 28x28.

  Args:
    images: Grey pixels, uint8 [n, 28, 28].
    labels: Classes, uint8 [n].
  """

  num_classes = 10
  class_names: tuple[str, ...] | None = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
  )
  mean = (72.9404,) * 3
  std = (90.0212,) * 3
  description = "Fashion-MNIST"
  left_out: tuple[str, ...] = ()
  eval_padding = 0
  decoding = Decoding()

  def __init__(self, images: np.ndarray, labels: np.ndarray):
    border = ((0, 0), (_BORDER, _BORDER), (_BORDER, _BORDER))
    self._images = np.pad(images, border)
    self._labels = labels
    self.listing = hash_listing(
      hashlib.sha256(array.tobytes()).hexdigest() for array in (images, labels)
    )

  def __len__(self) -> int:
    return len(self._labels)

  def __getitem__(self, index: int) -> Example:
    image = cv2.cvtColor(self._images[index], cv2.COLOR_GRAY2RGB)
    return {"image": image, "label": int(self._labels[index])}

  def where(self, index: int) -> str:
    """Name the place of an example: its index."""
    return f"image {index} of Fashion-MNIST"


def open_fashion_mnist(
  path: str | None, split: Split, examples: int | None = None
) -> FashionMnist:
  """Open Fashion-MNIST.

  Args:
    path: Folder of the four IDX files, compressed or not; None takes the images
      in the package.
    split: "train" or "test".
    examples: Number of examples to use, from the first on; None uses all.

  Returns:
    The source.

  Raises:
    UsageError: A file is missing or damaged, or has fewer examples.

  >>> len(open_fashion_mnist(None, "test"))
  2000
  """
  if path is None:
    images, labels = read_archive(split)
  else:
    images, labels = read_idx_folder(Path(path), split)
  count = example_count(examples, len(labels), path or "the package")
  return FashionMnist(images[:count], labels[:count])


def read_archive(
  split: Split, archive: Path = ARCHIVE, sha256: str = ARCHIVE_SHA256
) -> tuple[np.ndarray, np.ndarray]:
  """Read the images and labels of a split from the archive in the package.

  Returns:
    images: uint8 [n, 28, 28].
    labels: uint8 [n].

  Raises:
    UsageError: The archive is missing or damaged.
  """
  try:
    data = archive.read_bytes()
  except OSError as error:
    raise UsageError(f"{archive}: cannot be read: {error}") from None
  found = hashlib.sha256(data).hexdigest()
  if found != sha256:
    raise UsageError(
      f"{archive}: damaged: expected SHA-256 {sha256}, found {found}; "
      "install podscale again"
    )
  with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
    return arrays[f"{split}_images"], arrays[f"{split}_labels"]


def read_idx_folder(
  folder: Path, split: Split
) -> tuple[np.ndarray, np.ndarray]:
  """Read the images and labels of a split from IDX files.

  Returns:
    images: uint8 [n, 28, 28].
    labels: uint8 [n].

  Raises:
    UsageError: A file is missing or damaged, or the files do not match.
  """
  prefix = folder / _IDX_PREFIX[split]
  images = read_idx(
    prefix.with_name(prefix.name + "-images-idx3-ubyte"), (None, _SIZE, _SIZE)
  )
  labels_path = prefix.with_name(prefix.name + "-labels-idx1-ubyte")
  labels = read_idx(labels_path, (len(images),))
  if labels.size and labels.max() >= FashionMnist.num_classes:
    raise UsageError(
      f"{labels_path}: has label {labels.max()}, but Fashion-MNIST has only "
      f"{FashionMnist.num_classes} classes, 0 to "
      f"{FashionMnist.num_classes - 1}; download it again"
    )
  return images, labels
