"""Taps of the filter that meet inputs, along one dimension.

Both kernels split a dimension into a few ranges of positions that meet the same
taps, so that a tap that would only meet padding costs nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from ..window import Window


class TapRange(NamedTuple):
  """Positions `start` to `stop` that meet the same taps.

  Attributes:
    start: First position.
    stop: Position after the last; traced if a block may be cut short.
    taps: Indices into the filter.
  """

  start: int
  stop: Any
  taps: tuple[int, ...]


def output_ranges(window: Window) -> list[TapRange]:
  """Split the outputs of a dimension by the taps that meet an input."""

  def taps(output: int) -> tuple[int, ...]:
    first = output * window.stride - window.low
    return tuple(
      i for i in range(window.kernel_size) if 0 <= first + i < window.size
    )

  return _ranges(window.out, taps)


def input_ranges(window: Window, phase: int) -> list[TapRange]:
  """Split the inputs of a phase by the taps that meet an output.

  Position t is input t * stride + phase.
  """
  count = -(-(window.size - phase) // window.stride)

  def taps(position: int) -> tuple[int, ...]:
    padded = position * window.stride + phase + window.low
    return tuple(
      i
      for i in phase_taps(window, phase)
      if 0 <= (padded - i) // window.stride < window.out
    )

  return _ranges(count, taps)


def phase_taps(window: Window, phase: int) -> tuple[int, ...]:
  """List the taps that inputs phase, phase + stride, ... meet."""
  return tuple(
    i
    for i in range(window.kernel_size)
    if (phase + window.low - i) % window.stride == 0
  )


def reach(window: Window) -> tuple[int, int]:
  """Count the outputs before and after position t that inputs of t meet.

  Position t has inputs t * stride to t * stride + stride - 1.
  """
  return (
    (window.kernel_size - 1 - window.low) // window.stride,
    (window.low + window.stride - 1) // window.stride,
  )


def output_columns(
  window: Window, first: Any, columns: int
) -> dict[int, list[tuple[int, int]]]:
  """Pair input columns of a tile with the outputs and taps that they meet.

  Args:
    window: Window over the columns.
    first: Position of the tile's first input; an int or traced.
    columns: Input columns of the tile.

  Returns:
    Output column, counted from `first`, to its (input column, tap) pairs. If
    `first` is an int, outputs beyond the image are left out.
  """
  meetings: dict[int, list[tuple[int, int]]] = {}
  for column in range(columns):
    for tap in range(window.kernel_size):
      output, rest = divmod(column + window.low - tap, window.stride)
      known = isinstance(first, int)
      if rest or (known and not 0 <= first + output < window.out):
        continue
      meetings.setdefault(output, []).append((column, tap))
  return dict(sorted(meetings.items()))


def _ranges(
  count: int, taps: Callable[[int], tuple[int, ...]]
) -> list[TapRange]:
  ranges: list[TapRange] = []
  for position in range(count):
    here = taps(position)
    if ranges and ranges[-1].taps == here:
      ranges[-1] = ranges[-1]._replace(stop=position + 1)
    else:
      ranges.append(TapRange(position, position + 1, here))
  return ranges
