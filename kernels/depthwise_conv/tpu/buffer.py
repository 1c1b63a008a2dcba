"""The float32 buffer that the taps read: rows of an image, and zeros around.

Forward it holds the activated input, backward what comes back to the output.
With minimal filtering it holds their transform instead, tile by tile.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ...tpu.columns import UNROLLED, column_chunks
from ...tpu.loops import loop
from ...tpu.registers import TILE, convert, load, zeros
from ..window import Window
from .band_halo import Edge, Function
from .geometry import Geometry
from .winograd import Algorithm, Values


class Buffer(NamedTuple):
  """Where the rows of a step's block, and those around them, lie.

  Attributes:
    block: Rows of the block.
    rows: Rows of the image.
    above: Rows before the block's.
    below: Rows after the block's.
    columns: Columns of the image.
    left: Columns before the image's.
    right: Columns after the image's.
    registers: Registers of a column.
    filled: Columns that are filled at a time.
    turns: Rows of them.
    algorithm: Of minimal filtering, or None.
    banded: Whether bands of the image lie side by side.
  """

  block: int
  rows: int
  above: int
  below: int
  columns: int
  left: int
  right: int
  registers: int
  filled: int
  turns: int
  algorithm: Algorithm | None
  banded: bool

  @property
  def shape(self) -> tuple[int, ...]:
    """Rows, columns (or tiles' points), registers, 8, 128."""
    if self.algorithm:
      width = self.tiles * self.algorithm.points
    else:
      width = self.left + self.columns + self.right
    return self.above + self.block + self.below, width, self.registers, *TILE

  @property
  def bytes(self) -> int:
    """What it takes of VMEM."""
    return 4 * math.prod(self.shape)

  @property
  def tiles(self) -> int:
    """Tiles of outputs over a row; the last may be cut."""
    assert self.algorithm
    return pl.cdiv(self.columns, self.algorithm.outputs)

  @property
  def whole(self) -> bool:
    """Whether a step has all rows of its images."""
    return self.block >= self.rows

  def scratch(self) -> Any:
    """The buffer itself."""
    return pltpu.VMEM(self.shape, jnp.float32)

  def halo(self) -> list[int]:
    """Rows of other blocks that a step reads, from its block's start."""
    return [] if self.whole else self._around()

  def _around(self) -> list[int]:
    return [
      *range(-self.above, 0),
      *range(self.block, self.block + self.below),
    ]

  @property
  def reach(self) -> tuple[int, int]:
    """Rows above and below the block's."""
    return self.above, self.below

  @property
  def other_rows(self) -> int:
    """Rows that a step takes of each array besides its block."""
    return len(self.halo()) + self.banded * sum(self.reach)

  def clear_border(self, ref) -> None:
    """Zeros around the image; nothing else is ever written there.

    The rows above and below are those of other blocks where a step has not
    all of them, or of other bands, and are written each time.
    """
    if not self.algorithm:
      inside = range(self.left, self.left + self.columns)
      border = [col for col in range(self.shape[1]) if col not in inside]

      @pl.loop(0, self.shape[0])
      def _(row):
        for col in border:
          for p in range(self.registers):
            ref[row, col, p] = zeros()

    if self.whole and not self.banded:
      for row in range(self.shape[0]):
        if not 0 <= row - self.above < self.rows:
          self._clear_row(ref, row)

  def _clear_row(self, ref, row) -> None:
    left = 0 if self.algorithm else self.left
    width = self.shape[1] if self.algorithm else self.columns

    def chunk(first, size, _):
      for col in range(size):
        for p in range(self.registers):
          ref[row, left + first + col, p] = zeros()

    column_chunks(width, self.filled, chunk)

  def fill(
    self,
    ref,
    blocks: Sequence,
    halos: Sequence[Sequence],
    edges: Mapping[str, Edge],
    function: Function,
    i,
    sublanes,
    stage,
  ) -> None:
    """Writes a function of some arrays to the buffer.

    Args:
      ref: The buffer.
      blocks: Ref of each array's block.
      halos: For each row of `halo()`, the ref of each array.
      edges: The rows beyond a band's edges.
      function: Of a list of registers per array.
      i: Number of the block of rows.
      sublanes: Slice of the sublanes that are loaded together.
      stage: As for `tpu.registers.load`.
    """

    def fill(to_row, sources, row, function=function):
      given = ref, self.above + to_row, sources, row, function, sublanes
      if self.algorithm:  # which excludes loads in pairs
        self._fill_tiles(*given)
      else:
        self._fill_columns(*given, stage)

    def own(row, _):
      fill(row, blocks, row)

    first = 0 if self.whole else i * self.block

    def outside(row):
      """A row beyond the image, or beyond its band."""
      clear = partial(self._clear_row, ref, self.above + row)
      is_above = isinstance(row, int) and row < 0
      edge = edges.get("above" if is_above else "below")
      if edge is None:
        clear()
      elif is_above:
        sources, of_edge = edge
        fill(row, sources, self.above + first + row, of_edge)
      else:
        sources, of_edge = edge
        index = first + row - self.rows
        near = jnp.asarray(index < self.below)
        pl.when(near)(lambda: fill(row, sources, index, of_edge))
        pl.when(~near)(clear)

    if self.whole:
      loop(0, self.block, own, turns=self.turns)
      for row in self._around() if self.banded else []:
        outside(row)
      return
    there = jnp.minimum(self.block, self.rows - first)
    loop(0, there, own, turns=self.turns)
    if self.rows % self.block:
      loop(there, self.block, lambda row, _: outside(row))
    for row, sources in zip(self.halo(), halos, strict=True):
      inside = (first + row >= 0) & (first + row < self.rows)
      pl.when(inside)(partial(fill, row, sources, 0))
      pl.when(~inside)(partial(outside, row))

  def _fill_columns(
    self, ref, to_row, sources, row, function, sublanes, stage
  ) -> None:
    def chunk(first, size, _):
      to = (ref, to_row, self.left + first)
      convert(function, sources, row, first, size, sublanes, to, stage)

    column_chunks(self.columns, self.filled, chunk)

  def _fill_tiles(self, ref, to_row, sources, row, function, sublanes) -> None:
    """Tiles read `left` columns before their own, and share most of them.

    What a chunk of tiles shares with the next one is carried in registers.
    """
    algorithm = self.algorithm
    assert algorithm
    step, points = algorithm.outputs, algorithm.points
    ahead = points - step - self.left  # columns after a tile's own
    absent: Values = [None] * self.registers

    def values(first, size) -> list[list]:
      """Columns `first` to `first + size`; None beyond the last."""
      there = size
      if isinstance(first, int):
        there = max(min(size, self.columns - first), 0)
      loaded = [load(ref, row, first, there, sublanes) for ref in sources]
      columns = [
        function(*registers) for registers in zip(*loaded, strict=True)
      ]
      return [*columns, *[absent] * (size - there)]

    def chunk(first, size, carried):
      new = values(first * step + ahead, size * step)
      columns = [*carried, *new]
      for tile in range(size):
        window = columns[tile * step : tile * step + points]
        for p in range(self.registers):
          given = [registers[p] for registers in window]
          for j, point in enumerate(algorithm.input_transform(given)):
            value = zeros() if point is None else point
            ref[to_row, (first + tile) * points + j, p] = value
      return columns[size * step :]

    chunk_tiles = max(self.filled // step, 1)
    # Of these tiles all columns exist.
    full = max(self.columns - ahead, 0) // step
    looped = self.columns > UNROLLED and full // chunk_tiles > 1
    if looped:
      absent = [zeros()] * self.registers
    carried = [*[absent] * self.left, *values(0, ahead)]
    column_chunks(
      self.tiles, chunk_tiles, chunk, carried, looped=full if looped else 0
    )


def forward_buffer(g: Geometry) -> Buffer:
  """That of the activated input."""
  rows, cols = g.rows, g.cols
  last = (g.out_rows - 1) * rows.stride + rows.kernel_size
  return Buffer(
    block=g.in_rows,
    rows=rows.size,
    above=rows.low,
    below=max(last - rows.low - g.in_rows, 0),
    columns=cols.size,
    left=cols.low,
    right=max(cols.high, 0),
    registers=g.registers,
    filled=g.blocks.filled,
    turns=g.blocks.turns,
    algorithm=g.algorithm,
    banded=g.bands > 1,
  )


def backward_buffer(g: Geometry) -> Buffer:
  """That of the outputs' cotangents."""
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
    filled=g.blocks.filled,
    turns=g.blocks.turns,
    algorithm=g.algorithm,
    banded=g.bands > 1,
  )


def reach(window: Window) -> tuple[int, int]:
  """How many outputs before and after its own an input had a part in."""
  return (
    (window.kernel_size - 1 - window.low) // window.stride,
    (window.low + window.stride - 1) // window.stride,
  )
