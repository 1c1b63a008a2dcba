"""Fashion-MNIST: 28x28 grey photographs of clothes, ten classes.

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
"""First 10,000 training and 2,000 test images, in the package."""
ARCHIVE_SHA256 = (
  "c89840952bca868e3e6f42ecdbd5d4602d82d652c77befacbda195db3364166c"
)

_SIZE = 28
_BORDER = 2
_IDX_PREFIX: dict[Split, str] = {"train": "train", "test": "t10k"}


class FashionMnist:
  """The images with a black border, 32x32x3, and their labels.

  A border of two pixels takes them to 32x32, as LeNet-5 has MNIST (LeCun et al.
  1998, section II.B), and the one grey channel is repeated: 32 halves five
  times, and the network is the same as for photographs.

  Mean and deviation are those of the 60,000 training images at 28x28.
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
    """Of images uint8 [n, 28, 28] and labels uint8 [n]."""
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
    """Its number."""
    return f"image {index} of Fashion-MNIST"


def open_fashion_mnist(
  path: str | None, split: Split, examples: int | None = None
) -> FashionMnist:
  """Open Fashion-MNIST.

  Args:
    path: Folder of the four IDX files, packed or not; None takes the images in
      the package.
    split: "train" or "test".
    examples: Use only the first so many; None uses all.

  Raises:
    UsageError: a file is missing or damaged, or has fewer examples.

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
  """Read a split of the archive in the package, uint8 [n, 28, 28] and [n].

  Raises:
    UsageError: the archive is missing or not the one published.
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
  """Read a split of the IDX files, uint8 [n, 28, 28] and [n].

  Raises:
    UsageError: a file is missing or damaged, or the files do not match.
  """
  prefix = folder / _IDX_PREFIX[split]
  images = read_idx(
    prefix.with_name(prefix.name + "-images-idx3-ubyte"), (None, _SIZE, _SIZE)
  )
  labels_path = prefix.with_name(prefix.name + "-labels-idx1-ubyte")
  labels = read_idx(labels_path, (len(images),))
  if labels.size and labels.max() >= FashionMnist.num_classes:
    raise UsageError(
      f"{labels_path}: label {labels.max()}, but there are only "
      f"{FashionMnist.num_classes} classes"
    )
  return images, labels
