"""Plan of a buffer's rows: which source fills which rows, and when.

A step fills its buffer in one of two ways, by whether it has all rows of its
images (`whole_image`) or a block of them (`row_block`). An image in bands has a
neighbour above and below each band (`_beyond_image`), others have zeros.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from ...tpu.loops import loop
from ...tpu.registers import Registers
from .buffer import Buffer
from .row_writer import RowWriter


class Source(NamedTuple):
  """Refs of arrays, and the function of them that the buffer holds.

  Attributes:
    refs: Ref of each array.
    function: Function of a list of registers per array.
  """

  refs: Sequence[Any]
  function: Callable[..., Registers]


class Sources(NamedTuple):
  """Sources of all rows of a buffer.

  Attributes:
    block: Rows of the step's block.
    fetched: Source of one row, for each of `Buffer.fetched_rows`.
    bands: Rows of the neighbouring bands 'above' and 'below'.
  """

  block: Source
  fetched: Sequence[Source]
  bands: Mapping[Any, Source]


class RowFill(NamedTuple):
  """Rows of the buffer that one source fills.

  Rows of the buffer count from the block's first row: the halo above has
  negative rows.

  Attributes:
    start: First row.
    stop: Row after the last.
    source: Source of the rows; None for zeros.
    offset: Row of the source minus row of the buffer.
    mask: Traced condition to fill the rows; None for always.
    unroll: Rows that the compiler schedules together.
  """

  start: Any
  stop: Any
  source: Source | None
  offset: Any = 0
  mask: jax.Array | None = None
  unroll: int = 1


def plan_fills(
  buffer: Buffer, sources: Sources, row_block
) -> Iterator[RowFill]:
  """Plan all rows that a step writes.

  Args:
    buffer: Sizes of the buffer.
    sources: Sources of its rows.
    row_block: Number of the step's block of rows.
  """
  if buffer.whole:
    return _whole_image(buffer, sources)
  return _row_block(buffer, sources, row_block * buffer.block)


def fill(writer: RowWriter, fills: Iterator[RowFill]) -> None:
  """Write rows as planned."""
  for rows in fills:
    if rows.mask is None:
      _write(writer, rows)
    else:
      pl.when(rows.mask)(partial(_write, writer, rows))


def _write(writer: RowWriter, rows: RowFill) -> None:
  def row(row, _):
    if rows.source is None:
      writer.clear(row)
    else:
      writer.write(row, row + rows.offset, *rows.source)

  loop(rows.start, rows.stop, row, unroll=rows.unroll)


def _whole_image(buffer: Buffer, sources: Sources) -> Iterator[RowFill]:
  """Plan a step with all rows of its images, or of their bands.

  Halo rows without a neighbouring band are zeros, which `clear_border` writes
  once.
  """
  yield RowFill(0, buffer.block, sources.block, unroll=buffer.unroll)
  for row in buffer.halo_rows() if buffer.banded else []:
    yield from _beyond_image(buffer, sources, row, row + 1, 0)


def _row_block(
  buffer: Buffer, sources: Sources, first_row
) -> Iterator[RowFill]:
  """Plan a step with the block of rows from `first_row` on."""
  present = jnp.minimum(buffer.block, buffer.rows - first_row)
  yield RowFill(0, present, sources.block, unroll=buffer.unroll)
  if buffer.rows % buffer.block:  # the last block ends beyond the image
    yield from _beyond_image(buffer, sources, present, buffer.block, first_row)
  for row, source in zip(buffer.fetched_rows(), sources.fetched, strict=True):
    image_row = first_row + row
    inside = (image_row >= 0) & (image_row < buffer.rows)
    yield RowFill(row, row + 1, source, -row, inside)
    yield from _beyond_image(
      buffer, sources, row, row + 1, first_row, mask=~inside
    )


def _beyond_image(
  buffer: Buffer, sources: Sources, start, stop, first_row, mask=None
) -> Iterator[RowFill]:
  """Plan rows beyond the image, or beyond a band, where the mask allows.

  Args:
    buffer: Sizes of the buffer.
    sources: Sources of its rows.
    start: First row of the buffer, an int if it is above the block.
    stop: Row after the last.
    first_row: Row of the image in the block's first row.
    mask: Condition that the rows are beyond the image; None for always.
  """
  above = isinstance(start, int) and start < 0
  source = sources.bands.get("above" if above else "below")
  if source is None:
    yield RowFill(start, stop, None, mask=mask)
  elif above:
    yield RowFill(start, stop, source, buffer.above + first_row, mask)
  else:
    offset = first_row - buffer.rows
    near_stop = buffer.below - offset  # the source has no rows from there on
    if mask is not None:
      near = start < near_stop
      yield RowFill(start, stop, source, offset, mask & near)
      yield RowFill(start, stop, None, mask=mask & ~near)
    else:
      static = isinstance(near_stop, int)
      near_stop = (min if static else jnp.minimum)(near_stop, stop)
      yield RowFill(start, near_stop, source, offset)
      yield RowFill(near_stop, stop, None)
