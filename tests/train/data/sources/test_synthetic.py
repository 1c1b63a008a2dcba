"""Synthetic images."""

import numpy as np
import pytest

from podscale.train.data import Synthetic


@pytest.mark.parametrize("resolution", [1, 7, 32])
def test_an_example_is_a_function_of_its_index(resolution):
  first, second = (Synthetic(20, resolution, num_classes=3) for _ in range(2))
  for i in (0, 7, 19):
    assert first[i]["label"] == i % 3
    assert first[i]["image"].shape == (resolution, resolution, 3)
    assert first[i]["image"].dtype == np.uint8
    np.testing.assert_array_equal(first[i]["image"], second[i]["image"])


def test_examples_differ_within_a_class_and_between_splits():
  train = Synthetic(20, 16)
  test = Synthetic(20, 16, split="test")
  assert (train[0]["image"] != train[10]["image"]).any()
  assert (train[0]["image"] != test[0]["image"]).any()


def test_the_classes_can_be_told_apart():
  train = Synthetic(100, 32)
  test = Synthetic(100, 32, split="test")
  images = np.stack([train[i]["image"] for i in range(100)]).astype(float)
  means = images.reshape(10, 10, -1).mean(0)  # [class, pixels]
  for i in range(100):
    distances = np.abs(test[i]["image"].reshape(-1) - means).sum(1)
    assert np.argmin(distances) == test[i]["label"]


@pytest.mark.parametrize("index", [-1, 20])
def test_an_index_out_of_range_is_refused(index):
  with pytest.raises(IndexError, match=f"example {index} of 20"):
    Synthetic(20, 8)[index]
