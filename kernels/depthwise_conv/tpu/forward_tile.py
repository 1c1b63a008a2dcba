"""Convolution of one tile, as a function from registers to registers."""

from collections.abc import Callable, Container, Sequence

import jax

from .channel_vectors import FilterRegisters
from .winograd import Algorithm, Value, Values, plus

Read = Callable[[int, int], jax.Array]
"""Function of a filter row and a column to a register of the buffer.

Columns count from the first column that the tile reads; with winograd they are
points of consecutive Winograd tiles.
"""


def convolve(
  read: Read,
  filters: FilterRegisters,
  tap_rows: Sequence[int],
  columns: int,
  stride: int,
  padding: Container[int],
) -> Values:
  """Convolve a tile, each tap by itself.

  Args:
    read: Function that reads the buffer.
    filters: Register of each tap.
    tap_rows: Rows of the filter that meet the image.
    columns: Output columns of the tile.
    stride: Columns from one output to the next.
    padding: Columns that are known to be zero, which are not read.

  Returns:
    A register per output column; None for zeros.
  """
  taps = len(filters[0])
  outputs: Values = [None] * columns
  for a in tap_rows:
    for j in range((columns - 1) * stride + taps):
      if j in padding:
        continue
      z = read(a, j)
      for column in range(columns):
        b = j - column * stride
        if 0 <= b < taps:
          outputs[column] = plus(outputs[column], z * filters[a][b])
  return outputs


def convolve_winograd(
  read: Read,
  filters: FilterRegisters,
  tap_rows: Sequence[int],
  columns: int,
  algorithm: Algorithm,
) -> Values:
  """Convolve a tile by Winograd's minimal filtering.

  Args:
    read: Function that reads the buffer.
    filters: Register of each row of taps and each point.
    tap_rows: Rows of the filter that meet the image.
    columns: Output columns of the tile.
    algorithm: Winograd algorithm.

  Returns:
    A register per output column.
  """
  points = algorithm.points
  tiles = range(-(-columns // algorithm.outputs))
  products: list[list[Value]] = [[None] * points for _ in tiles]
  for j in range(points):
    for a in tap_rows:
      for t in tiles:
        z = read(a, t * points + j)
        products[t][j] = plus(products[t][j], z * filters[a][j])
  outputs = [
    column
    for values in products
    for column in algorithm.output_transform(values)
  ]
  return outputs[:columns]
