"""Conversion of rows of refs to rows of the float32 buffer."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jax.experimental import pallas as pl

from ...tpu.columns import UNROLLED, column_chunks
from ...tpu.registers import Registers, convert, load, zeros
from .buffer import Buffer
from .winograd import Values


class RowWriter(NamedTuple):
  """Writer of the buffer's rows, for one sublane tile.

  Attributes:
    buffer: Sizes of the buffer.
    ref: Ref of the buffer.
    sublanes: Slice of the sublanes that are loaded together.
    unpack_scratch: See `tpu.registers.load`.
  """

  buffer: Buffer
  ref: Any
  sublanes: Any
  unpack_scratch: Any

  def write(
    self, row, source_row, refs: Sequence, function: Callable[..., Registers]
  ) -> None:
    """Write a function of a row of some refs.

    Args:
      row: Row of the buffer, counted from the block's first row.
      source_row: Row of the refs.
      refs: Refs.
      function: Function of a list of registers per ref.
    """
    to_row = self.buffer.above + row
    if self.buffer.algorithm:  # never together with bfloat16 pairs
      self._write_winograd(to_row, source_row, refs, function)
    else:
      self._write_columns(to_row, source_row, refs, function)

  def clear(self, row) -> None:
    """Write zeros to a row, counted from the block's first row."""
    clear_row(self.buffer, self.ref, self.buffer.above + row)

  def _write_columns(self, to_row, source_row, refs, function) -> None:
    buffer = self.buffer

    def chunk(first, size, _):
      to = (self.ref, to_row, buffer.left + first)
      columns = source_row, first, size, self.sublanes
      convert(function, refs, *columns, to, self.unpack_scratch)

    column_chunks(buffer.columns, buffer.fill_columns, chunk)

  def _write_winograd(self, to_row, source_row, refs, function) -> None:
    """Write the transform of each Winograd tile.

    A tile of `outputs` columns reads `points` columns, from `left` before its
    own. Neighbouring tiles share most of them: a chunk of tiles passes the
    shared columns to the next chunk in registers.
    """
    buffer, algorithm = self.buffer, self.buffer.algorithm
    assert algorithm
    step, points = algorithm.outputs, algorithm.points
    ahead = points - step - buffer.left  # columns read after the tile's own
    absent: Values = [None] * buffer.registers

    def read(first, size) -> list[list]:
      """Read columns `first` to `first + size`; None beyond the image."""
      present = size
      if isinstance(first, int):
        present = max(min(size, buffer.columns - first), 0)
      loaded = [
        load(ref, source_row, first, present, self.sublanes) for ref in refs
      ]
      columns = [
        function(*registers) for registers in zip(*loaded, strict=True)
      ]
      return [*columns, *[absent] * (size - present)]

    def chunk(first, size, carried):
      columns = [*carried, *read(first * step + ahead, size * step)]
      for tile in range(size):
        inputs = columns[tile * step : tile * step + points]
        for r in range(buffer.registers):
          values = [registers[r] for registers in inputs]
          for j, point in enumerate(algorithm.input_transform(values)):
            value = zeros() if point is None else point
            self.ref[to_row, (first + tile) * points + j, r] = value
      return columns[size * step :]

    chunk_tiles = max(buffer.fill_columns // step, 1)
    # Tiles whose columns all exist; a loop cannot treat columns as None.
    full = max(buffer.columns - ahead, 0) // step
    looped = buffer.columns > UNROLLED and full // chunk_tiles > 1
    if looped:
      absent = [zeros()] * buffer.registers
    carried = [*[absent] * buffer.left, *read(0, ahead)]
    column_chunks(
      buffer.winograd_tiles,
      chunk_tiles,
      chunk,
      carried,
      looped=full if looped else 0,
    )


def clear_border(buffer: Buffer, ref) -> None:
  """Write the zeros around the image, which later steps leave as they are.

  Halo rows are written here only if a step has all rows of an image in one
  band; otherwise each step writes its halo.
  """
  if not buffer.algorithm:
    image = range(buffer.left, buffer.left + buffer.columns)
    border = [col for col in range(buffer.shape[1]) if col not in image]

    @pl.loop(0, buffer.shape[0])
    def _(row):
      for col in border:
        for r in range(buffer.registers):
          ref[row, col, r] = zeros()

  if buffer.whole and not buffer.banded:
    for row in range(buffer.shape[0]):
      if not 0 <= row - buffer.above < buffer.rows:
        clear_row(buffer, ref, row)


def clear_row(buffer: Buffer, ref, row) -> None:
  """Write zeros to row `row` of the buffer, without its border."""
  left = 0 if buffer.algorithm else buffer.left
  width = buffer.shape[1] if buffer.algorithm else buffer.columns

  def chunk(first, size, _):
    for col in range(size):
      for r in range(buffer.registers):
        ref[row, left + first + col, r] = zeros()

  column_chunks(width, buffer.fill_columns, chunk)
