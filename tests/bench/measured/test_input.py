"""The benchmark of the input pipeline."""

import cv2
import numpy as np
import pytest

from podscale.bench.__main__ import main
from podscale.bench.measured.input import time_input
from podscale.train.data.loading import prefetch

STAGES = [
  *("whole files decoded", "whole files decoded", "read", "read"),
  *("decode, crop, resize, flip",) * 2,
  *("decode to the crop's end, crop, resize, flip",) * 2,
  *("decode, crop, resize, flip, AutoAugment",) * 2,
  *("evaluation's decode, crop, resize",) * 2,
  *("batches", "batches, AutoAugment"),
]


def check(rows, batch_size):
  assert [row["stage"] for row in rows] == STAGES
  assert [row["threads"] for row in rows] == [1, 2] * 6 + [2] * 2
  for row in rows:
    assert len(row["samples_s"]) == 2
    assert row["min_s"] <= row["median_s"] <= row["max_s"]
    rates, whole = (
      [r["images"] / seconds for seconds in r["samples_s"]]
      for r in (row, rows[0])
    )
    by_turn = [a / b for a, b in zip(rates, whole, strict=True)]
    assert row["of_decode"] == pytest.approx(np.mean(by_turn))  # of two
  assert rows[-1]["images_per_s"] == batch_size / rows[-1]["median_s"]


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
  monkeypatch.setattr(prefetch, "cores", lambda: 2)


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
  assert line.endswith("none: No such file or directory")
