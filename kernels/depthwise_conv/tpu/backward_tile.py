"""Gradients of one tile, as functions from registers to registers."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax

from ...common.tpu_prologue import Prologue
from ...tpu.registers import Registers, zeros
from .channel_vectors import FilterRegisters
from .winograd import Algorithm, Value, Values, plus

Read = Callable[[int, int], jax.Array]
"""Function of a filter row and a column to a register of the buffer.

The buffer has the outputs' cotangents, and the row is that of the output that
meets the tile with the filter row. Columns count from the tile's position; with
winograd they are points of consecutive Winograd tiles.
"""

AddToFilter = Callable[[int, int, jax.Array], None]
"""Function that adds a register to the filter's gradient.

It takes a row and a column of the filter, with winograd a point. The functions
below call it as soon as a sum is complete: if they returned all sums at the
end, registers would spill.
"""


class PrologueSums(NamedTuple):
  """Sums over inputs for the gradients of scale and offset."""

  scale: jax.Array
  offset: jax.Array


def gradients(
  read: Read,
  filters: FilterRegisters,
  z: Registers,
  tap_rows: Sequence[int],
  meetings: Mapping[int, list[tuple[int, int]]],
  add_to_filter: AddToFilter,
) -> Values:
  """Compute a tile's gradients, each tap by itself.

  Args:
    read: Function that reads the buffer.
    filters: Register of each tap.
    z: Activated input, a register per column.
    tap_rows: Rows of the filter that meet an output.
    meetings: Result of `taps.output_columns`.
    add_to_filter: Function that adds to the filter's gradient.

  Returns:
    The gradient of z, a register per column; None for zeros.
  """
  dz: Values = [None] * len(z)
  for a in tap_rows:
    filter_sums: dict[int, jax.Array] = {}
    for output, pairs in meetings.items():
      dy = read(a, output)
      for column, b in pairs:
        dz[column] = plus(dz[column], dy * filters[a][b])
        filter_sums[b] = plus(filter_sums.get(b), dy * z[column])
    for b, filter_sum in filter_sums.items():
      add_to_filter(a, b, filter_sum)
  return dz


def gradients_winograd(
  read: Read,
  filters: FilterRegisters,
  z: Registers,
  tap_rows: Sequence[int],
  algorithm: Algorithm,
  add_to_filter: AddToFilter,
) -> Values:
  """Compute a tile's gradients by Winograd's minimal filtering.

  Args:
    read: Function that reads the buffer.
    filters: Register of each row of taps and each point.
    z: Activated input, a register per column.
    tap_rows: Rows of the filter that meet an output.
    algorithm: Winograd algorithm.
    add_to_filter: Function that adds to the transformed filter's gradient.

  Returns:
    The gradient of z, a register per column.
  """
  size, points = algorithm.outputs, algorithm.points
  tiles = range(-(-len(z) // size))
  padded: Values = [*z, *[None] * (len(tiles) * size - len(z))]
  transposed = [
    algorithm.output_transposed(padded[t * size : (t + 1) * size])
    for t in tiles
  ]
  products: list[list[Value]] = [[None] * points for _ in tiles]
  for j in range(points):
    for a in tap_rows:
      filter_sum: Value = None
      for t in tiles:
        dy = read(a, t * points + j)
        products[t][j] = plus(products[t][j], dy * filters[a][j])
        if transposed[t][j] is not None:
          filter_sum = plus(filter_sum, dy * transposed[t][j])
      if filter_sum is not None:
        add_to_filter(a, j, filter_sum)
  dz = [
    column
    for values in products
    for column in algorithm.output_transform(values)
  ]
  return dz[: len(z)]


def prologue_gradients(
  prologue: Prologue,
  x: Registers,
  slopes: Values,
  dz: Values,
  sums: PrologueSums,
) -> tuple[Registers, PrologueSums]:
  """Compute dx of a tile, and add to the sums for scale and offset.

  Args:
    prologue: Prologue of the channel group.
    x: Input, a register per column.
    slopes: Slope of the activation per column; None for 1.
    dz: Gradient of the activated input per column; None for zeros.
    sums: Sums so far.
  """
  scale_sum, offset_sum = sums
  dx = []
  for column, slope, du in zip(x, slopes, dz, strict=True):
    du = zeros() if du is None else du
    if slope is not None:
      du = du * slope
    offset_sum = offset_sum + du
    scale_sum = scale_sum + du * column
    # For silu the slope is twice the derivative, and the scale is halved.
    dx.append(du if prologue.scale is None else du * prologue.scale)
  return dx, PrologueSums(scale_sum, offset_sum)
