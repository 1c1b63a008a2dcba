"""The program that made the package's archive of Fashion-MNIST.

python -m podscale.train.data.make_fashion_mnist IDX_FOLDER ARCHIVE
"""

import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np

from .sources.fashion_mnist import read_idx_folder


def write_archive(
  idx_folder: Path, archive: Path, *, train: int = 10_000, test: int = 2_000
) -> str:
  """Write the first images and labels of each split as an .npz file.

  The same input gives the same bytes, because members have no date. Deflate
  compresses them; LZMA would save an eighth, but not every Python has it.

  Args:
    idx_folder: Folder of the four IDX files.
    archive: Path of the file to write. It holds train_images uint8
      [train, 28, 28], train_labels uint8 [train], and the same for test.
    train: Number of training images.
    test: Number of test images.

  Returns:
    SHA-256 of the archive, in hexadecimal.
  """
  splits = {
    "train": [array[:train] for array in read_idx_folder(idx_folder, "train")],
    "test": [array[:test] for array in read_idx_folder(idx_folder, "test")],
  }
  with zipfile.ZipFile(archive, "w") as file:
    for split, arrays in splits.items():
      for name, array in zip(("images", "labels"), arrays, strict=True):
        member = io.BytesIO()
        np.lib.format.write_array(member, array, allow_pickle=False)
        file.writestr(
          zipfile.ZipInfo(f"{split}_{name}.npy"),
          member.getvalue(),
          compress_type=zipfile.ZIP_DEFLATED,
          compresslevel=9,
        )
  return hashlib.sha256(archive.read_bytes()).hexdigest()


if __name__ == "__main__":
  print(write_archive(Path(sys.argv[1]), Path(sys.argv[2])))
