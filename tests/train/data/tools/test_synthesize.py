"""The synthetic ImageNet."""

import numpy as np

from podscale.train.data.decoding.picture import Picture
from podscale.train.data.tools.synthesize import synthetic_jpeg


def test_files_are_as_large_as_imagenets():
  sizes = [len(synthetic_jpeg(i, i % 10)) for i in range(20)]
  assert 90_000 < np.mean(sizes) < 115_000
  assert Picture(synthetic_jpeg(0, 0)).decode().shape == (375, 500, 3)


def test_pictures_differ_by_index_class_and_split():
  files = {
    synthetic_jpeg(0, 0),
    synthetic_jpeg(1, 0),
    synthetic_jpeg(0, 1),
    synthetic_jpeg(0, 0, split="test"),
  }
  assert len(files) == 4


def test_a_class_can_be_told_by_its_colours():
  """The nearest mean of 4 x 4 cells classifies the other split."""

  def cells(index, split):
    pixels = Picture(synthetic_jpeg(index, index % 5, split=split)).decode()
    return pixels[:360, :500].reshape(4, 90, 4, 125, 3).mean((1, 3)).ravel()

  train = np.stack([cells(i, "train") for i in range(40)])
  means = np.stack([train[c::5].mean(0) for c in range(5)])
  test = np.stack([cells(i, "test") for i in range(20)])
  found = np.linalg.norm(test[:, None] - means, axis=2).argmin(1)
  assert np.mean(found == np.arange(20) % 5) > 0.9
