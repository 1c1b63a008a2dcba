"""Fashion-MNIST from the package and from IDX files."""

import gzip
import re
import struct

import numpy as np
import pytest

from podscale.train.data import FashionMnist, open_fashion_mnist
from podscale.train.data.make_fashion_mnist import write_archive
from podscale.train.data.sources.fashion_mnist import ARCHIVE, read_archive
from podscale.train.errors import UsageError

NAMES = {
  "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
  "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def idx(array):
  header = bytes([0, 0, 8, array.ndim])
  return header + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def fake(split, count):
  rng = np.random.default_rng(len(split))
  images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
  return images, np.arange(count, dtype=np.uint8) % 10


@pytest.fixture
def folder(tmp_path):
  for split, count in (("train", 30), ("test", 20)):
    for name, array in zip(NAMES[split], fake(split, count), strict=True):
      (tmp_path / name).write_bytes(idx(array))
  return tmp_path


def test_the_package_has_the_published_images():
  train = open_fashion_mnist(None, "train")
  test = open_fashion_mnist(None, "test")
  assert (len(train), len(test)) == (10_000, 2_000)
  # Labels of the first ten of each split, as in the paper's repository.
  assert [train[i]["label"] for i in range(10)] == [
    9,
    0,
    0,
    3,
    0,
    2,
    7,
    2,
    5,
    5,
  ]
  assert [test[i]["label"] for i in range(10)] == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
  images, labels = read_archive("train")
  assert images.shape == (10_000, 28, 28) and images.dtype == np.uint8
  # The classes are balanced: 1,000 of each in 10,000, give or take five
  # standard deviations, sqrt(10,000 * 0.1 * 0.9) = 30 each.
  assert np.abs(np.bincount(labels, minlength=10) - 1000).max() < 150
  # A sixth of the training set has its mean and deviation within 1 %.
  assert images.mean() == pytest.approx(FashionMnist.mean[0], rel=0.01)
  assert images.std() == pytest.approx(FashionMnist.std[0], rel=0.01)


def test_an_image_gets_a_border_and_three_equal_channels():
  images, _ = fake("train", 3)
  source = FashionMnist(images, np.array([4, 5, 6], np.uint8))
  example = source[1]
  assert example["label"] == 5 and isinstance(example["label"], int)
  assert example["image"].dtype == np.uint8
  want = np.zeros((32, 32, 3), np.uint8)
  want[2:30, 2:30] = images[1][:, :, None]
  np.testing.assert_array_equal(example["image"], want)
  with pytest.raises(IndexError):
    source[3]


def test_the_licence_is_in_the_package():
  text = ARCHIVE.with_name("fashion_mnist.LICENSE.txt").read_text()
  for part in ("MIT License", "2017 Zalando SE", "arXiv:1708.07747"):
    assert part in text


def test_a_damaged_archive_is_refused(tmp_path):
  data = bytearray(ARCHIVE.read_bytes())
  data[1000] ^= 1
  damaged = tmp_path / "damaged.npz"
  damaged.write_bytes(data)
  with pytest.raises(UsageError) as error:
    read_archive("train", damaged)
  message = str(error.value)
  assert str(damaged) in message and "\n" not in message
  assert len(set(re.findall(r"\b[0-9a-f]{64}\b", message))) == 2


def test_a_missing_archive_is_refused(tmp_path):
  with pytest.raises(UsageError, match=r"gone\.npz"):
    read_archive("train", tmp_path / "gone.npz")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("split, count", [("train", 30), ("test", 20)])
def test_idx_files_are_read(folder, packed, split, count):
  if packed:
    for path in list(folder.iterdir()):
      path.with_name(path.name + ".gz").write_bytes(
        gzip.compress(path.read_bytes())
      )
      path.unlink()
  source = open_fashion_mnist(str(folder), split)
  images, labels = fake(split, count)
  assert [source[i]["label"] for i in range(count)] == labels.tolist()
  inside = np.stack([source[i]["image"][2:30, 2:30, 0] for i in range(count)])
  np.testing.assert_array_equal(inside, images)


def refusal(folder):
  with pytest.raises(UsageError) as error:
    open_fashion_mnist(str(folder), "train")
  assert "\n" not in str(error.value)
  return str(error.value)


def test_a_missing_idx_file_is_named(folder):
  (folder / NAMES["train"][1]).unlink()
  assert f"{NAMES['train'][1]}.gz: no such file" in refusal(folder)
  assert "no such file" in refusal(folder / "nowhere")


# 30 images of 784 bytes and a header of 16.
@pytest.mark.parametrize(
  "size, found",
  [(23_535, "found 23535"), (100, "found 100"), (10, "10 bytes")],
)
def test_a_truncated_idx_file_tells_its_sizes(folder, size, found):
  path = folder / NAMES["train"][0]
  path.write_bytes(path.read_bytes()[:size])
  message = refusal(folder)
  assert str(path) in message and "truncated" in message and found in message
  assert ("expected 23536" if size > 16 else "header alone has 16") in message


@pytest.mark.parametrize("lost", [1, 8, 5000])
def test_a_truncated_packed_file_is_refused(folder, lost):
  path = folder / NAMES["train"][0]
  packed = path.with_name(path.name + ".gz")
  packed.write_bytes(gzip.compress(path.read_bytes())[:-lost])
  path.unlink()
  message = refusal(folder)
  assert str(packed) in message and "truncated: expected 23536" in message


def test_a_damaged_packed_file_is_refused(folder):
  path = folder / NAMES["train"][0]
  packed = path.with_name(path.name + ".gz")
  path.unlink()
  packed.write_bytes(b"not gzip")
  assert f"{packed}: cannot be read" in refusal(folder)


def test_a_file_too_long_is_refused(folder):
  path = folder / NAMES["train"][1]
  path.write_bytes(path.read_bytes() + b"x")
  assert "too long: expected 38 bytes" in refusal(folder)


def test_another_kind_of_file_is_refused(folder):
  path = folder / NAMES["train"][0]
  labels = folder / NAMES["train"][1]
  path.write_bytes(labels.read_bytes())
  assert "0x00000801, not 0x00000803" in refusal(folder)
  path.write_bytes(idx(np.zeros((30, 28, 27), np.uint8)))
  assert "found [30, 28, 27]" in refusal(folder)


def test_labels_that_do_not_fit_are_refused(folder):
  path = folder / NAMES["train"][1]
  path.write_bytes(idx(np.zeros(29, np.uint8)))
  assert "expected sizes [30], found [29]" in refusal(folder)
  path.write_bytes(idx(np.full(30, 10, np.uint8)))
  assert f"{path}: has label 10" in refusal(folder)


def test_the_recipe_of_the_archive(folder):
  sums = [
    write_archive(folder, folder / name, train=7, test=5) for name in "ab"
  ]
  assert sums[0] == sums[1]
  assert (folder / "a").read_bytes() == (folder / "b").read_bytes()
  for split, count in (("train", 7), ("test", 5)):
    images, labels = read_archive(split, folder / "a", sums[0])
    want_images, want_labels = fake(split, 30 if split == "train" else 20)
    np.testing.assert_array_equal(images, want_images[:count])
    np.testing.assert_array_equal(labels, want_labels[:count])
