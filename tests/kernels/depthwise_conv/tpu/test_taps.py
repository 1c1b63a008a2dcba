"""Ranges of positions that meet the same taps, against the definition."""

import pytest

from podscale.kernels.depthwise_conv.tpu.taps import (
  input_ranges,
  output_ranges,
  phase_taps,
)
from podscale.kernels.depthwise_conv.window import window

WINDOWS = [
  window(size, kernel_size, stride, "SAME")
  for size in (1, 2, 5, 8)
  for kernel_size in (3, 5, 7)
  for stride in (1, 2)
]


def pairs(w):
  """Return (output, tap, input) of each tap that meets an input."""
  return {
    (output, tap, output * w.stride + tap - w.low)
    for output in range(w.out)
    for tap in range(w.kernel_size)
    if 0 <= output * w.stride + tap - w.low < w.size
  }


@pytest.mark.parametrize("w", WINDOWS, ids=str)
def test_outputs_meet_their_inputs(w):
  found = {
    (output, tap, output * w.stride + tap - w.low)
    for start, stop, taps in output_ranges(w)
    for output in range(start, stop)
    for tap in taps
  }
  assert found == pairs(w)


@pytest.mark.parametrize("w", WINDOWS, ids=str)
def test_inputs_meet_their_outputs(w):
  found = set()
  for phase in range(w.stride):
    for start, stop, taps in input_ranges(w, phase):
      assert set(taps) <= set(phase_taps(w, phase))
      for position in range(start, stop):
        place = position * w.stride + phase
        for tap in taps:
          output, rest = divmod(place + w.low - tap, w.stride)
          assert rest == 0
          found.add((output, tap, place))
  assert found == pairs(w)


def test_ranges_are_as_long_as_they_can_be():
  ranges = output_ranges(window(10, 5, 1, "SAME"))
  assert [(r.start, r.stop) for r in ranges] == [
    (0, 1),
    (1, 2),
    (2, 8),
    (8, 9),
    (9, 10),
  ]
