"""Estimates beside published times."""

import json

import pytest
from support.libtpu_mark import NEEDS_LIBTPU

from podscale.bench.__main__ import main
from podscale.bench.estimated.calibration.compare import (
  BAND,
  compare_pairs,
  errors_by_chip,
  exit_code,
)
from podscale.bench.estimated.calibration.pairs import all_pairs
from podscale.bench.estimated.calibration.programs import lower_matmul
from podscale.bench.estimated.static import kept
from podscale.train.errors import UsageError


def test_a_chip_without_a_published_time(capsys):
  assert main(["calibrate", "--chip", "v2"]) == 2
  first, second = capsys.readouterr().err.splitlines()
  assert "no time of v2 is published" in first
  assert "expected one of the chips" in second


class TestSmallPrograms:
  pytestmark = NEEDS_LIBTPU

  @pytest.fixture
  def pairs(self):
    names = ("128 cubed, XLA", "copy of 4 MiB", "gather of 1 MiB over 4 chips")
    return [x for x in all_pairs() if x.chip == "tpu7x" and x.program in names]

  def test_estimates_are_inside_their_band(self, pairs, tmp_path):
    rows = compare_pairs(pairs, tmp_path)
    assert len(rows) == 3
    for row in rows:
      assert row["band"] == "inside"
      assert abs(row["ratio"] - 1) <= BAND
    bounds = {row["program"]: row["bound"] for row in rows}
    assert bounds == {
      "128 cubed, XLA": "latency",
      "copy of 4 MiB": "HBM",
      "gather of 1 MiB over 4 chips": "links",
    }
    assert exit_code(rows) == 0
    (chip, total) = errors_by_chip(rows)
    assert (chip["chip"], chip["pairs"]) == ("tpu7x", 1)  # the others fitted
    assert {**total, "chip": "tpu7x"} == chip

  def test_a_kept_program_is_not_compiled_again(
    self, pairs, tmp_path, monkeypatch
  ):
    before = compare_pairs(pairs[:1], tmp_path)
    monkeypatch.setattr(kept, "compiled", None)
    assert compare_pairs(pairs[:1], tmp_path) == before

  def test_the_chip_is_part_of_the_key(self, tmp_path):
    # XLA's product has the same text for every chip.
    for chip in "tpu7x", "v5e":
      with kept.kept_compilation(lower_matmul(chip, 128), tmp_path, chip):
        pass
    assert len(list(tmp_path.glob("*.tar.gz"))) == 2

  def test_a_program_that_fails_does_not_stop_the_others(self, pairs, tmp_path):
    def fail():
      raise ValueError("no such thing\nand more")

    broken = pairs[0]._replace(lower=fail)
    first, second = compare_pairs([broken, pairs[1]], tmp_path)
    assert (first["band"], first["ratio"]) == ("no such thing", None)
    assert second["band"] == "inside"
    assert exit_code([first, second]) == 0
    with pytest.raises(UsageError, match="no program can be estimated"):
      compare_pairs([broken], tmp_path)

  def test_the_command(self, pairs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
      "podscale.bench.estimated.calibration.pairs.all_pairs", lambda: pairs
    )
    picture = tmp_path / "pairs.png"
    words = ["calibrate", "--chip", "tpu7x"]
    assert main([*words, "--json", "--plot", str(picture)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["program"] for row in rows] == [x.program for x in pairs]
    assert picture.stat().st_size > 1000
    # A table as well, also where a program could not be estimated.
    pairs.append(pairs[0]._replace(program="broken", lower=None))
    assert main(words) == 0
    assert "broken" in capsys.readouterr().out
