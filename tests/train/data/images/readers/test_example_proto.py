"""The encoding of tf.train.Example, read and written."""

import pytest

from podscale.train.data.images.readers.example_proto import (
  read_features,
  read_image,
  read_label,
  write_features,
  write_image,
)
from podscale.train.data.source import BadExampleError

# {"a": bytes "xy", "i": int 300, "f": float 1.0}, as TensorFlow serialises it:
# features (1) of map entries (1) of a key (1) and a feature (2).
BYTES = bytes.fromhex("0a0b 0a01 61 1206 0a04 0a02 7879".replace(" ", ""))
INT = bytes.fromhex("0a0b 0a01 69 1206 1a04 0a02 ac02".replace(" ", ""))
FLOAT = bytes.fromhex("0a0d 0a01 66 1208 1206 0a04 0000803f".replace(" ", ""))


def example(*entries):
  body = b"".join(entries)
  return b"\x0a" + bytes([len(body)]) + body


def test_as_tensorflow_serialises():
  assert read_features(example(BYTES, INT)) == {"a": b"xy", "i": 300}


def test_numbers_that_are_not_packed():
  unpacked = bytes.fromhex("0a0a0a016912051a0308ac02")
  assert read_features(example(unpacked)) == {"i": 300}


def test_floats_and_empty_lists_are_left_out():
  empty = bytes.fromhex("0a070a016512020a00")
  assert read_features(example(FLOAT, empty, INT)) == {"i": 300}


@pytest.mark.parametrize("number", [0, 1, 127, 128, 2**63 - 1, -1, -(2**63)])
def test_numbers_come_back(number):
  assert read_features(write_features({"n": number})) == {"n": number}


def test_long_bytes_come_back():
  file = bytes(range(256)) * 1000
  assert read_image(write_image(file, 999)) == (file, 999, 0)


def test_labels_of_imagenet_to_gcs_begin_at_1():
  record = write_features(
    {"image/encoded": b"x", "image/class/label": 1, "image/height": 5}
  )
  assert read_image(record) == (b"x", 1, 1)
  assert read_label(memoryview(record)) == (1, 1)


@pytest.mark.parametrize("features", [{"label": 3}, {"image": b"x"}, {}])
def test_half_an_example_has_no_label(features):
  record = write_features(features)
  for read in (read_image, read_label):
    with pytest.raises(BadExampleError, match="its features: "):
      read(memoryview(record))


@pytest.mark.parametrize("keep", [1, 2, 5, 9, 12, 14])
def test_what_is_cut_short_is_no_example(keep):
  with pytest.raises(BadExampleError):
    read_image(example(BYTES)[:keep])


@pytest.mark.parametrize(
  "data",
  [b"\xff" * 20, b"\x0b", b"\x08\x01", b"\x0a\x02\x08\x01", bytes(7)],
)
def test_other_bytes_are_no_example(data):
  with pytest.raises(BadExampleError, match=r"not a tf\.train\.Example"):
    read_features(data)


def test_other_features_are_named():
  record = write_features({"image": b"x", "class": 3})
  with pytest.raises(BadExampleError, match="its features: class, image"):
    read_image(record)
