"""Estimates of a whole step, on a network small enough for a test."""

import dataclasses

import pytest
from support.libtpu_mark import NEEDS_LIBTPU

from podscale.bench.chips import CHIPS
from podscale.bench.estimated.collective_cost import (
  Slice,
  all_reduce_us,
  ring_us,
  scatter_us,
)
from podscale.bench.estimated.static import slice_devices
from podscale.bench.estimated.step import (
  Movement,
  estimate_step,
  pod_config,
  slice_of,
)
from podscale.train.schedule import make_schedule
from podscale.train.settings.presets import get_preset

V3 = Slice(CHIPS["v3"], (16, 32, 1), 2)


def test_config_is_the_large_batch_recipe():
  config = pod_config("b2", 2048)
  assert (config.model.name, config.batch_size) == ("b2", 2048)
  assert config.optimizer.name == "lars"
  assert config.schedule.lr_per_256 == get_preset("b5-64k").schedule.lr_per_256
  # A slice of four chips has a schedule as well.
  make_schedule(
    pod_config("b0", 256).schedule,
    batch_size=256,
    steps_per_epoch=100,
    total_steps=35_000,
  )


def test_collectives_take_what_the_model_says():
  everywhere = Movement("all-reduce", 4096, 0)
  assert everywhere.us(V3) == all_reduce_us(4096, V3)
  assert everywhere._replace(group=1024).us(V3) == everywhere.us(V3)
  group = Movement("all-reduce", 4096, 4)
  assert group.us(V3) == ring_us(4096, Slice(CHIPS["v3"], (1, 2, 1), 2))
  # Both dimensions have 32 devices.
  rows = Movement("reduce-scatter", 4096, 32)
  columns = Movement("reduce-scatter", 128, 32)
  scattered = rows.us(V3) + columns.us(V3)
  assert scattered == pytest.approx(scatter_us(4096 * 32, V3))
  gathered = Movement("all-gather", 4096 * 32, 32)
  assert gathered.us(V3) == rows.us(V3)
  # XLA may cut it into its steps.
  step = Movement("collective-permute", 4096, 2)
  assert 31 * step.us(V3) == pytest.approx(gathered.us(V3))


class TestEstimates:
  pytestmark = [pytest.mark.slow, *NEEDS_LIBTPU]

  def test_ours_against_plain(self):
    devices = slice_devices("v5e:4x4")
    smoke = dataclasses.replace(get_preset("smoke"), batch_size=128)
    plain, ours = (
      estimate_step(
        smoke, chip="v5e", devices=devices, implementation=implementation
      )
      for implementation in ("plain", "best")
    )
    assert slice_of(CHIPS["v5e"], devices) == Slice(CHIPS["v5e"], (4, 4, 1), 1)
    for row in (plain, ours):
      assert row["step_us"] == row["core_us"] + row["collective_us"]
      rate = 8e6 / row["step_us"]
      assert row["images_per_s_per_core"] == pytest.approx(rate)
      assert sum(row["kinds"].values()) == pytest.approx(row["step_us"])
      assert all(us > 0 for us in row["kinds"].values())
      assert 0 < row["peak_bytes"] < 2**30
      assert row["of_hbm"] == row["peak_bytes"] / 2**34
      assert len(row["top"]) == 20
    # Two for each of 22 batch norms, and at most three more.
    assert 44 < plain["collectives"]["count"] < 48
    # Gradients scattered and weights gathered in two dimensions.
    assert 48 < ours["collectives"]["count"] < 52
    assert ours["step_us"] < plain["step_us"]
    assert not ours["failed"]
