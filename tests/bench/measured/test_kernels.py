"""The benchmark of the depthwise op, on layers small enough for a test."""

import pytest

from podscale.bench.layers import DepthwiseShape
from podscale.bench.measured.kernels import compare_depthwise


@pytest.mark.parametrize("stride", [1, 2])
def test_both_sides_compute_the_same_gradients(stride):
  shape = DepthwiseShape(8, 16, 3, stride)
  (row,) = compare_depthwise([shape], batch_size=4, runs=3)
  assert row["layer"] == f"8x8x16 3x3 s{stride}"
  assert row["plain_s"] > 0 and row["podscale_s"] > 0
  assert row["ratio"] == row["plain_s"] / row["podscale_s"]
  # Sums of 4 * 8 * 8 float32 products, in another order: at most n * eps / 2
  # relative to the sum of the magnitudes (Higham, section 4.2), on each side.
  assert 0 < row["difference"] < 4 * 8 * 8 * 1.2e-7
