"""Constants fitted to pairs, on programs that compile in seconds."""

import pytest
from support.libtpu_mark import NEEDS_LIBTPU

from podscale.bench.chips import CHIPS
from podscale.bench.estimated.calibration.fit import FIELDS, fit_rows
from podscale.bench.estimated.calibration.pairs import all_pairs


def test_each_constant_lies_between_its_limits():
  for chip in CHIPS.values():
    for field, low, high in FIELDS.values():
      assert low < getattr(chip, field) < high


class TestSmallPrograms:
  pytestmark = NEEDS_LIBTPU

  @pytest.fixture
  def pairs(self):
    names = ("shift of 1 KiB to the next chip", "128 cubed, XLA")
    return [x for x in all_pairs() if x.program in names and x.chip != "v5p"]

  def test_a_constant_without_another_pair_has_no_check(self, pairs, tmp_path):
    latency, step = fit_rows(pairs, tmp_path)
    assert latency["constant"] == "DMA_LATENCY_US"
    assert latency["asks"] == pytest.approx(0.43, abs=0.01)
    assert step["constant"] == "STEP_US"
    # A shift is one step, and its bytes take 1024 / (88 * 1000) us. Twelve
    # halvings of 0.5 to 15 us leave 0.0035.
    assert step["asks"] == pytest.approx(5.6 - 0.0116, abs=0.004)
    assert step["others ask"] is latency["ratio"] is None

  def test_each_pair_is_estimated_by_what_the_others_ask(self, pairs, tmp_path):
    (step,) = [x for x in pairs if x.fits == "STEP_US"]
    faster = step._replace(published_us=2.8)
    rows = fit_rows([step, faster], tmp_path)
    assert [row["others ask"] for row in rows] == [
      row["asks"] for row in reversed(rows)
    ]
    assert rows[0]["ratio"] == pytest.approx(0.5, rel=0.01)
    assert rows[1]["ratio"] == pytest.approx(2, rel=0.01)

  def test_pairs_that_fit_nothing_are_left_out(self, pairs, tmp_path):
    assert fit_rows([x._replace(fits="") for x in pairs], tmp_path) == []
