"""Which taps of the filter meet which inputs, along one dimension.

Both kernels run over a dimension as a few ranges of positions that all meet
the same taps, so that a tap that would only meet padding costs nothing.
"""

from collections.abc import Callable
from typing import NamedTuple

from ..window import Window


class Range(NamedTuple):
  """Positions `start` to `stop` that meet the same taps.

  Attributes:
    start: First position.
    stop: One after the last; a traced value where a block may be cut short.
    taps: Indices into the filter.
  """

  start: int
  stop: object
  taps: tuple[int, ...]


def output_ranges(window: Window) -> list[Range]:
  """The outputs of a whole dimension, by the taps that meet an input."""

  def taps(output: int) -> tuple[int, ...]:
    first = output * window.stride - window.low
    return tuple(
      i for i in range(window.kernel_size) if 0 <= first + i < window.size
    )

  return _ranges(window.out, taps)


def input_ranges(window: Window, phase: int) -> list[Range]:
  """Inputs phase, phase + stride, ..., by the taps that meet an output.

  Positions count the phase's inputs: position t is input t * stride + phase.
  """
  count = -(-(window.size - phase) // window.stride)

  def taps(position: int) -> tuple[int, ...]:
    here = position * window.stride + phase + window.low
    return tuple(
      i
      for i in phase_taps(window, phase)
      if 0 <= (here - i) // window.stride < window.out
    )

  return _ranges(count, taps)


def phase_taps(window: Window, phase: int) -> tuple[int, ...]:
  """The taps that meet inputs phase, phase + stride, ... at all."""
  return tuple(
    i
    for i in range(window.kernel_size)
    if (phase + window.low - i) % window.stride == 0
  )


def _ranges(count: int, taps: Callable[[int], tuple[int, ...]]) -> list[Range]:
  ranges: list[Range] = []
  for position in range(count):
    here = taps(position)
    if ranges and ranges[-1].taps == here:
      ranges[-1] = ranges[-1]._replace(stop=position + 1)
    else:
      ranges.append(Range(position, position + 1, here))
  return ranges
