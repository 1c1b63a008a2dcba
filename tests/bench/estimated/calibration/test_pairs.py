"""Published times, and the ratios of estimates to them."""

import pytest

from podscale.bench.chips import CHIPS
from podscale.bench.estimated.calibration.pairs import Pair, all_pairs


def pair(**settings):
  return Pair("copy", "v5e", "", 100.0, lambda: None, "a/b, c.md", **settings)


def test_a_pair_names_its_chip_and_source():
  pairs = all_pairs()
  names = [(x.program, x.chip, x.source) for x in pairs]
  assert len(names) == len(set(names)) >= 27
  for x in pairs:
    assert x.chip in CHIPS
    assert x.topology.partition(":")[0] in ("", x.chip)
    assert 0 <= x.overhead_us < x.published_us
    assert x.source.count("/") >= 1


def test_most_pairs_fit_nothing_and_each_constant_has_some():
  fitted = [x.fits for x in all_pairs() if x.fits]
  assert set(fitted) == {
    *("HBM_EFFICIENCY", "DMA_SHARE", "DMA_LATENCY_US"),
    *("STEP_US", "LINK_EFFICIENCY"),
  }
  assert min(map(fitted.count, fitted)) >= 2
  assert len(fitted) < len(all_pairs()) / 2


@pytest.mark.parametrize(
  ("settings", "estimate", "ratio"),
  [
    ({}, 90.0, 0.9),
    ({}, 110.0, 1.1),
    # The device ran between 80 and 100 us of the host's time.
    ({"overhead_us": 20.0}, 80.0, 1),
    ({"overhead_us": 20.0}, 99.0, 1),
    ({"overhead_us": 20.0}, 72.0, 0.9),
    ({"overhead_us": 20.0}, 120.0, 1.2),
    ({"clock": "at most"}, 1.0, 1),
    ({"clock": "at most"}, 150.0, 1.5),
  ],
)
def test_ratio_to_the_nearest_time_that_the_publication_allows(
  settings, estimate, ratio
):
  assert pair(**settings).ratio(estimate) == pytest.approx(ratio)
