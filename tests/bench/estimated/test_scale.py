"""Throughput of slices, from collectives compiled for a small slice."""

import pytest
from support.libtpu_mark import NEEDS_LIBTPU

from podscale.bench.chips import CHIPS
from podscale.bench.estimated import scale
from podscale.bench.estimated.collective_cost import (
  Slice,
  all_reduce_us,
  ring_us,
  scatter_us,
)
from podscale.bench.estimated.scale import collective_us, scaling_rows
from podscale.bench.estimated.static import slice_devices
from podscale.bench.estimated.step import Movement, slice_of
from podscale.bench.tables.paper_table import PAPER_TABLE, SLICES

SMALL, LARGE = Slice(CHIPS["v3"], (8, 8), 2), Slice(CHIPS["v3"], (16, 32), 2)
MOVEMENTS = [
  Movement("all-reduce", 4096, 4),
  Movement("all-reduce", 1000, 128),
  Movement("reduce-scatter", 2**20 // 16, 16),
  Movement("reduce-scatter", 2**20 // 128, 8),
  Movement("all-gather", 2**20 // 16, 8),
  Movement("all-gather", 2**20, 16),
]


@pytest.mark.parametrize("slice_", [SMALL, LARGE])
def test_collectives_are_priced_for_the_slice(slice_):
  expected = ring_us(4096, Slice(CHIPS["v3"], (1, 2), 2)) + all_reduce_us(
    1000, slice_
  )
  expected += 2 * scatter_us(2**20, slice_)
  assert collective_us(MOVEMENTS, 128, slice_) == pytest.approx(expected)


def test_on_the_compiled_slice_each_collective_counts_unchanged():
  alone = sum(movement.us(SMALL) for movement in MOVEMENTS)
  assert collective_us(MOVEMENTS, 128, SMALL) == pytest.approx(alone)


def test_steps_of_a_cut_gather_are_not_counted_again():
  cut = [Movement("collective-permute", 2**20 // 16, 2)] * 15
  assert collective_us([*MOVEMENTS[:5], *cut], 128, LARGE) == pytest.approx(
    collective_us(MOVEMENTS, 128, LARGE)
  )


def test_rows_stand_beside_the_published(monkeypatch):
  class Step:
    core_us = 70_000.0
    movements = ()

  monkeypatch.setattr(scale, "slice_devices", lambda name: [name])
  monkeypatch.setattr(scale, "slice_of", lambda chip, _: Slice(chip, (8, 8), 2))
  monkeypatch.setattr(scale, "compiled_step", lambda *_, **__: Step)
  rows = scaling_rows(
    "b2", chips=["v3", "v5e"], per_core=32, implementation="best"
  )
  assert [row["cores"] for row in rows] == [128, 256, 512, 1024, 2048, 128, 256]
  assert rows[3]["images_per_ms"] == pytest.approx(32768 / 70)
  assert rows[3]["published_images_per_ms"] == PAPER_TABLE["b2", 1024][0]
  assert rows[3]["of_published"] == pytest.approx(32768 / 70 / 451.35)
  # The paper has neither 2,048 cores nor other chips.
  assert all(row["of_published"] is None for row in rows[4:])
  others = scaling_rows("b2", chips=["v3"], per_core=64, implementation="best")
  assert all(row["of_published"] is None for row in others)


class TestSlices:
  pytestmark = NEEDS_LIBTPU

  @pytest.mark.parametrize("chip", SLICES)
  def test_are_there_with_as_many_devices(self, chip):
    for count, sides in SLICES[chip].items():
      devices = slice_devices(f"{chip}:{'x'.join(map(str, sides))}")
      assert len(devices) == count
      assert slice_of(CHIPS[chip], devices).sides[: len(sides)] == sides
