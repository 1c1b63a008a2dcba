"""The benchmark of the host's part."""

import cv2
import numpy as np
import pytest

from podscale.bench.__main__ import main
from podscale.bench.input import time_input
from podscale.train.data.prefetch import cores

PARTS = [
  "decode",
  "crop, resize, flip",
  "evaluation's crop and resize",
  "batches",
]


def check(rows, batch_size):
  assert [row["part"] for row in rows] == PARTS
  assert [row["threads"] for row in rows] == [1, 1, 1, cores()]
  for row in rows:
    assert len(row["samples_s"]) == 2
    assert row["min_s"] <= row["median_s"] <= row["max_s"]
  batches = rows[-1]
  assert batches["images_per_s"] == batch_size / batches["median_s"]


def test_images_are_made_where_none_are_given():
  check(time_input("b0", path=None, batch_size=16, runs=2), 16)


def test_own_images(tmp_path):
  folder = tmp_path / "train" / "grey"
  folder.mkdir(parents=True)
  for i in range(3):
    cv2.imwrite(str(folder / f"{i}.png"), np.full((40, 50, 3), i, np.uint8))
  rows = time_input("b1", path=str(tmp_path), batch_size=8, runs=2)
  check(rows, 8)
  assert rows[0]["images_per_s"] == pytest.approx(3 / rows[0]["median_s"])


def test_a_missing_folder_is_one_line(tmp_path, capsys):
  assert main(["input", "--path", str(tmp_path / "none")]) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert "train/CLASS/*.jpg" in line
