"""Sources that the settings name."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from podscale.train.data import (
  IMAGENET_MEAN,
  IMAGENET_STD,
  FashionMnist,
  Synthetic,
  open_source,
)
from podscale.train.data.images.readers.example_proto import write_features
from podscale.train.data.images.readers.tfrecord import write_tfrecord
from podscale.train.data.tools.synthesize import synthesize, synthetic_jpeg
from podscale.train.errors import UsageError
from podscale.train.settings.config import DataConfig


def test_fashion_mnist_in_the_package():
  config = DataConfig(source="fashion-mnist", train_examples=100)
  train = open_source(config, "train", 32)
  test = open_source(config, "test", 32)
  assert isinstance(train, FashionMnist)
  assert (len(train), len(test)) == (100, 2_000)
  assert train.num_classes == len(train.class_names) == 10


def test_synthetic_has_the_resolution_asked_for():
  config = DataConfig(source="synthetic", train_examples=64)
  train = open_source(config, "train", 24)
  test = open_source(config, "test", 24)
  assert isinstance(train, Synthetic)
  assert len(train) == 64
  assert train[0]["image"].shape == (24, 24, 3)
  assert (train[0]["image"] != test[0]["image"]).any()


def test_normalising_constants_are_on_the_scale_of_bytes():
  source = open_source(DataConfig(source="synthetic"), "train", 8)
  np.testing.assert_allclose(source.mean, (123.675, 116.28, 103.53))
  np.testing.assert_allclose(source.std, (58.395, 57.12, 57.375))
  assert (source.mean, source.std) == (IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.parametrize(
  "config, message",
  [
    (
      DataConfig(source="fashion-mnist", train_examples=10_001),
      "--data.train-examples is 10001, but the package has only 10000 training "
      "images; give None to use all",
    ),
    (DataConfig(source="images"), "needs --data.path"),
    (DataConfig(source="images", path="nowhere"), "nowhere: No such file"),
    (
      DataConfig(source="synthetic", path="x"),
      "data.path is x, .* add --data.source images",
    ),
    (DataConfig(source="fashion-mnist", path="x"), "x/train-images"),
  ],
)
def test_what_cannot_be_opened_is_told_in_one_line(config, message):
  with pytest.raises(UsageError, match=message) as error:
    open_source(config, "train", 32)
  assert "\n" not in str(error.value)


JPEG = synthetic_jpeg(0, 0, width=8, height=8)


def images(folder, layout, **settings):
  synthesize(
    folder,
    layout,
    examples={"train": 9, "test": 6},
    classes=3,
    width=8,
    height=8,
  )
  return DataConfig(path=str(folder), **settings)


def test_evaluation_on_another_set(tmp_path):
  other = tmp_path / "other" / "class-0002"
  other.mkdir(parents=True)
  (other / "0.jpg").write_bytes(JPEG)
  config = images(tmp_path / "own", "folder", eval_path=str(other.parent))
  train = open_source(config, "train", 32)
  test = open_source(config, "test", 32)
  assert (len(train), len(test)) == (9, 1)
  assert test[0]["label"] == 2 and test.num_classes == 3
  assert test.class_names == train.class_names
  assert test.description == f"class folders in {other.parent}"


def test_evaluation_on_other_shards(tmp_path):
  synthesize(
    tmp_path / "other",
    "tar",
    examples={"train": 3, "test": 3},
    classes=3,
    width=8,
    height=8,
  )
  config = images(
    tmp_path / "own",
    "tfrecord",
    num_classes=3,
    eval_path=str(tmp_path / "other"),
  )
  test = open_source(config, "test", 32)
  assert (len(test), test.num_classes) == (3, 3)


def test_evaluation_on_another_set_is_for_images():
  with pytest.raises(
    UsageError, match="eval-path x needs --data.source images"
  ):
    open_source(DataConfig(source="synthetic", eval_path="x"), "test", 32)


def labelled(path, labels, name="image/class/label"):
  image = "image/encoded" if "/" in name else "image"
  write_tfrecord(
    path, (write_features({image: JPEG, name: label}) for label in labels)
  )


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize(
  "name, train, test, message",
  [
    # All of them would be the class below.
    ("image/class/label", [1, 2], [0, 1, 2], "labels seem to start at 0"),
    ("image/class/label", [1, 2], [1, 2], "may start at 0 or at 1"),
    ("image/class/label", [1, 2], [1, 2, 4], "label 4 is outside the 3"),
    ("label", [0, 1], [-1, -1], "-1 marks images without a label"),
    ("label", [0, 1], [0, 3], "label 3 is outside the 3 classes"),
  ],
)
def test_evaluation_labels_are_checked_before_training(
  tmp_path, name, train, test, message, cache
):
  labelled(tmp_path / "train-00000-of-00001", train, name)
  labelled(tmp_path / "validation-00000-of-00001", test, name)
  config = DataConfig(path=str(tmp_path), num_classes=3, cache=cache)
  with pytest.raises(UsageError, match=message):
    open_source(config, "test", 32)


def test_the_last_class_may_be_in_the_training_images_only(tmp_path):
  labelled(tmp_path / "train-00000-of-00001", [1, 2, 3])
  labelled(tmp_path / "validation-00000-of-00001", [1, 2])
  config = DataConfig(path=str(tmp_path), num_classes=3)
  test = open_source(config, "test", 32)
  assert [test[i]["label"] for i in range(2)] == [0, 1]
  assert test.description.endswith(", labels from 1")


def test_an_offset_settles_where_labels_begin(tmp_path):
  labelled(tmp_path / "train-00000-of-00001", [1, 2])
  labelled(tmp_path / "validation-00000-of-00001", [1, 2])
  config = DataConfig(path=str(tmp_path), num_classes=3, label_offset=0)
  test = open_source(config, "test", 32)
  assert [test[i]["label"] for i in range(2)] == [1, 2]
  assert test.description.endswith(", labels from 0")


@pytest.mark.parametrize(
  "test, settings",
  [("folder", {}), ("folder", {"eval_path": "."}), ("tar", {"eval_path": "."})],
)
def test_training_labels_are_checked_where_test_labels_say_nothing(
  tmp_path, monkeypatch, test, settings
):
  """Labels without 0 and without the highest one may start at 0 or at 1."""
  monkeypatch.chdir(tmp_path)
  train = Path("other") if settings else Path()
  images(tmp_path, test)
  if test == "folder":
    shutil.rmtree("train")
  train.mkdir(exist_ok=True)
  labelled(train / "train-00000-of-00001", [1, 1, 2])
  config = DataConfig(path=str(train), num_classes=3, **settings)
  with pytest.raises(UsageError, match="may start at 0 or at 1"):
    open_source(config, "test", 32)
  labelled(train / "train-00000-of-00001", [1, 3, 2])
  assert len(open_source(config, "test", 32)) == 6
