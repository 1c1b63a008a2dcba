"""Lower bound of a depthwise layer's time."""

import pytest

from podscale.bench.chips import HBM_EFFICIENCY
from podscale.bench.depthwise_bound import bound_us
from podscale.bench.layers import DepthwiseShape

HBM = 819e3 * HBM_EFFICIENCY  # bytes that v5e moves in a microsecond


def test_a_3x3_layer_on_v5e_is_bound_by_memory():
  # 6 passes over 56 * 56 * 64 * 256 values of 2 bytes, at 0.87 of 819 GB/s.
  expected = 6 * 56 * 56 * 64 * 256 * 2 / HBM
  shape = DepthwiseShape(56, 144, 3, 1)
  assert bound_us(shape, 64, "v5e", "HWNC") == pytest.approx(expected)


def test_with_the_images_in_the_lanes_channels_are_padded_to_8():
  expected = 6 * 56 * 56 * 128 * 24 * 2 / HBM
  shape = DepthwiseShape(56, 20, 3, 1)
  assert bound_us(shape, 100, "v5e", "HWCN") == pytest.approx(expected)


def test_a_strided_layer_writes_a_quarter():
  expected = (3 + 3 / 4) * 2 * 56 * 56 * 64 * 256 / HBM
  shape = DepthwiseShape(56, 144, 3, 2)
  assert bound_us(shape, 64, "v5e", "HWNC") == pytest.approx(expected)


def test_a_5x5_layer_is_bound_by_vector_slots():
  # Winograd's F(4, 5): 36 operations for a tile's inputs, 22 for its outputs,
  # 18 transposed; 8 points of 9 operations, of 10 for the filters' gradient.
  taps = (36 + 22 + 72) / 4, (36 + 22 + 72 + 18 + 80) / 4
  others = 5 + 4.5, 5 + 13.5
  registers = 14 * 14 * 64 * 768 / 1024
  expected = (sum(taps) + sum(others)) * registers / 4 / 1750
  shape = DepthwiseShape(14, 672, 5, 1)
  assert bound_us(shape, 64, "v6e", "HWNC") == pytest.approx(expected)
