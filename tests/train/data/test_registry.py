"""From settings to a source."""

import numpy as np
import pytest

from podscale.train.config import DataConfig
from podscale.train.data import (
  IMAGENET_MEAN,
  IMAGENET_STD,
  FashionMnist,
  Synthetic,
  open_source,
)
from podscale.train.errors import UsageError


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
      "train_examples is 10001, but the package has only 10000",
    ),
    (DataConfig(source="images"), "needs data.path"),
    (DataConfig(source="images", path="nowhere"), "nowhere: No such file"),
    (DataConfig(source="synthetic", path="x"), "data.path is x"),
    (DataConfig(source="fashion-mnist", path="x"), "x/train-images"),
  ],
)
def test_what_cannot_be_opened_is_told_in_one_line(config, message):
  with pytest.raises(UsageError, match=message) as error:
    open_source(config, "train", 32)
  assert "\n" not in str(error.value)
