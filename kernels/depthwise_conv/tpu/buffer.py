"""Sizes of the float32 buffer that the taps read.

Forward the buffer has the activated input, backward the cotangent of the
output: a step's rows, the halo above and below them, and a border of zeros. See
the picture in `geometry.py`. With winograd it has the transform of the columns
instead, Winograd tile by tile, and no border at the sides.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ...tpu.registers import TILE
from .geometry import Geometry
from .taps import reach
from .winograd import Algorithm


class Buffer(NamedTuple):
  """Rows and columns of the buffer.

  Attributes:
    block: Rows of a step's block.
    rows: Rows of the image.
    above: Halo rows above the block.
    below: Halo rows below the block.
    columns: Columns of the image.
    left: Border columns before the image.
    right: Border columns after the image.
    registers: Registers of a column.
    fill_columns: Columns that are written together.
    unroll: Rows that the compiler schedules together.
    algorithm: Winograd algorithm, or None.
    banded: True if the image is cut in bands.
  """

  block: int
  rows: int
  above: int
  below: int
  columns: int
  left: int
  right: int
  registers: int
  fill_columns: int
  unroll: int
  algorithm: Algorithm | None
  banded: bool

  @property
  def shape(self) -> tuple[int, ...]:
    """Rows, columns (with winograd points of all tiles), registers, 8, 128."""
    if self.algorithm:
      width = self.winograd_tiles * self.algorithm.points
    else:
      width = self.left + self.columns + self.right
    return self.above + self.block + self.below, width, self.registers, *TILE

  @property
  def bytes(self) -> int:
    """VMEM of the buffer."""
    return 4 * math.prod(self.shape)

  @property
  def winograd_tiles(self) -> int:
    """Winograd tiles of a row; the last may have outputs beyond the image."""
    assert self.algorithm
    return pl.cdiv(self.columns, self.algorithm.outputs)

  @property
  def whole(self) -> bool:
    """True if a step has all rows of its images."""
    return self.block >= self.rows

  @property
  def reach(self) -> tuple[int, int]:
    """Halo rows above and below the block."""
    return self.above, self.below

  def scratch(self) -> Any:
    """Make the scratch that holds the buffer."""
    return pltpu.VMEM(self.shape, jnp.float32)

  def halo_rows(self) -> list[int]:
    """List the halo rows, counted from the block's first row."""
    above = range(-self.above, 0)
    below = range(self.block, self.block + self.below)
    return [*above, *below]

  def fetched_rows(self) -> list[int]:
    """List the halo rows that a step fetches from blocks of other steps."""
    return [] if self.whole else self.halo_rows()

  @property
  def extra_rows(self) -> int:
    """Rows that a step fetches of each array besides its block."""
    return len(self.fetched_rows()) + self.banded * sum(self.reach)


def forward_buffer(g: Geometry) -> Buffer:
  """Describe the buffer of the activated input."""
  rows, cols = g.rows, g.cols
  read_rows = (g.out_rows - 1) * rows.stride + rows.kernel_size
  return Buffer(
    block=g.in_rows,
    rows=rows.size,
    above=rows.low,
    below=max(read_rows - rows.low - g.in_rows, 0),
    columns=cols.size,
    left=cols.low,
    right=max(cols.high, 0),
    registers=g.registers,
    fill_columns=g.blocks.fill_columns,
    unroll=g.blocks.unroll,
    algorithm=g.algorithm,
    banded=g.bands > 1,
  )


def backward_buffer(g: Geometry) -> Buffer:
  """Describe the buffer of the output's cotangent."""
  (above, below), (left, right) = reach(g.rows), reach(g.cols)
  return Buffer(
    block=g.out_rows,
    rows=g.rows.out,
    above=above,
    below=below,
    columns=g.cols.out,
    left=left,
    right=right,
    registers=g.registers,
    fill_columns=g.blocks.fill_columns,
    unroll=g.blocks.unroll,
    algorithm=g.algorithm,
    banded=g.bands > 1,
  )
