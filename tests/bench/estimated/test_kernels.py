"""Estimates of the depthwise op on a TPU, from its compiler alone."""

import importlib.util

import pytest

from podscale.bench.estimated.kernels import better_layout, estimate_depthwise
from podscale.bench.layers import DepthwiseShape

needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None,
  reason="libtpu, the TPU's compiler, is not installed",
)


@pytest.mark.parametrize(
  ("channels", "batch", "layout"),
  [(144, 64, "HWNC"), (32, 64, "HWCN"), (240, 128, "HWCN"), (256, 128, "HWNC")],
)
def test_the_layout_fills_the_lanes(channels, batch, layout):
  assert better_layout(DepthwiseShape(56, channels, 3, 1), batch) == layout


@pytest.mark.libtpu
@needs_libtpu
@pytest.mark.parametrize("chip", ["v3", "v5e", "v6e"])
def test_a_layer_is_compiled_and_estimated(chip):
  shape = DepthwiseShape(8, 128, 3, 1)
  (row,) = estimate_depthwise([shape], batch_size=16, chip=chip)
  assert (row["layer"], row["layout"]) == ("8x8x128 3x3 s1", "HWNC")
  assert (row["chip"], row["images"]) == (chip, 16)
  assert row["ratio"] == row["xla_us"] / row["ours_us"]
  assert 0 < row["ours_forward_us"] < row["ours_us"]
  assert 0 < row["of_bound"] < 1
  assert row["chosen"] == "pallas_tpu"
  assert row["failures"] == []
