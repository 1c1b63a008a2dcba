"""Estimates of the depthwise op on a TPU, by its compiler alone."""

import importlib.util

import pytest

from podscale.bench.kernel_estimates import bound_us, estimate_depthwise
from podscale.bench.shapes import DepthwiseShape

needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None,
  reason="libtpu, the TPU's compiler, is not installed",
)


def test_a_3x3_layer_on_v5e_is_bound_by_memory():
  # 6 passes over 56 * 56 * 64 * 256 values of 2 bytes, at 819 GB/s.
  expected = 6 * 56 * 56 * 64 * 256 * 2 / 819e3
  shape = DepthwiseShape(56, 144, 3, 1)
  assert bound_us(shape, 64, "v5e") == pytest.approx(expected, rel=1e-12)


def test_a_5x5_layer_on_v3_is_bound_by_vector_slots():
  # 150 operations for each of 14 * 14 * 64 * 768 / 1024 registers, two a cycle
  # of 940 MHz.
  expected = 150 * 14 * 14 * 64 * 768 / 1024 / 2 / 940
  shape = DepthwiseShape(14, 672, 5, 1)
  assert bound_us(shape, 64, "v3") == pytest.approx(expected, rel=1e-12)


def test_a_strided_layer_writes_a_quarter():
  expected = (3 + 3 / 4) * 2 * 56 * 56 * 64 * 256 / 819e3
  shape = DepthwiseShape(56, 144, 3, 2)
  assert bound_us(shape, 64, "v5e") == pytest.approx(expected, rel=1e-12)


@pytest.mark.libtpu
@needs_libtpu
@pytest.mark.parametrize("chip", ["v3", "v5e", "v6e"])
def test_a_layer_is_compiled_and_judged(chip):
  shape = DepthwiseShape(8, 128, 3, 1)
  (row,) = estimate_depthwise([shape], batch_size=16, chip=chip)
  assert row["layer"] == "8x8x128 3x3 s1"
  assert row["ratio"] == row["xla_us"] / row["ours_us"]
  assert 0 < row["ours_forward_us"] < row["ours_us"]
  assert 0 < row["of_bound"] < 1
