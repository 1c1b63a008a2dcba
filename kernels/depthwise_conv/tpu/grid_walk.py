"""Walk over a grid step, the same for the forward and the backward kernel.

`walk` calls the methods of a `GridKernel` as follows:

    start()                            first step of a group of channels
    for tile in sublane tiles:
      fill(tile)                       the block and its halo -> the buffer
      prepare(tile)                    filters etc., the same for all columns
      for sweep in sweeps():
        for position in rows:          `blocks.unroll` rows together
          for index in column tiles:   `blocks.columns` columns each
            compute(tile, index)       buffer -> block of the output, sums
        add_sums(tile)
    finish(group)                      last step of a group of channels
"""

import abc
import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from ...tpu.columns import UNROLLED, column_chunks
from ...tpu.loops import loop
from ...tpu.registers import LANES, SUBLANES, TILE, batch_masks, sublane_images
from .channel_vectors import ChannelInputs, ChannelOutputs
from .geometry import Geometry, unpack_scratch_of
from .taps import TapRange

Masks = list[jax.Array] | None


class Step(NamedTuple):
  """Position of a grid step.

  Attributes:
    row_block: Number of the step's block of rows.
    is_first: True in the first step of a group of channels.
  """

  row_block: jax.Array
  is_first: jax.Array


class SublaneTile(NamedTuple):
  """Sublanes of a step that are loaded together.

  Attributes:
    number: Number of the tile in its step.
    sublanes: Slice of the sublanes.
    first: First sublane, counted over all steps.
    groups: Channel groups of the tile; register r holds group r % len(groups).
    masks: Mask of the values that belong to an image, for each register; None
      if all do.
  """

  number: jax.Array
  sublanes: pl.Slice
  first: jax.Array
  groups: list
  masks: Masks


class Sweep(NamedTuple):
  """Rows whose sums stay in registers.

  Attributes:
    phase: Phase of the rows, the remainder by the stride; 0 forward.
    ranges: Positions of the rows, by the taps that they meet.
  """

  phase: int
  ranges: list[TapRange]


class TileIndex(NamedTuple):
  """Position of a tile in a step's block.

  Attributes:
    position: Row forward; backward the row is position * stride + phase.
    phase: Phase of the row.
    tap_rows: Rows of the filter that meet the row.
    first: First column forward; first column divided by the stride backward.
    columns: Number of columns.
  """

  position: Any
  phase: int
  tap_rows: tuple[int, ...]
  first: Any
  columns: int


@dataclasses.dataclass(frozen=True)
class GridKernel[Shared, Sums](abc.ABC):
  """Steps of a kernel; see the module's docstring for their order.

  Attributes:
    inputs: Channel inputs.
    outputs: Channel outputs.
    refs: Refs of the kernel.
  """

  inputs: ChannelInputs
  outputs: ChannelOutputs
  refs: Any

  @property
  def g(self) -> Geometry:
    """Geometry of the call."""
    return self.inputs.g

  @property
  @abc.abstractmethod
  def width(self) -> tuple[int, int]:
    """Columns of a row, and how many of them one `TileIndex.first` counts."""

  @abc.abstractmethod
  def start(self) -> None:
    """Clear the buffer's border and the sums."""

  @abc.abstractmethod
  def fill(self, step: Step, tile: SublaneTile) -> None:
    """Write the step's rows and their halo to the buffer."""

  @abc.abstractmethod
  def prepare(self, step: Step, tile: SublaneTile) -> Shared:
    """Load what all columns of a sublane tile share."""

  @abc.abstractmethod
  def sweeps(self, step: Step) -> Iterable[Sweep]:
    """List the rows to compute."""

  @abc.abstractmethod
  def zero_sums(self) -> Sums:
    """Make the sums of one channel group at the start of a sweep."""

  @abc.abstractmethod
  def compute(
    self,
    tile: SublaneTile,
    shared: Shared,
    index: TileIndex,
    sums: list[Sums],
  ) -> list[Sums]:
    """Compute and store the columns of a tile, and add them to the sums."""

  @abc.abstractmethod
  def add_sums(self, group, sums: Sums) -> None:
    """Add the sums of a sweep to those of all steps."""

  @abc.abstractmethod
  def finish(self, group) -> None:
    """Write the channel outputs of a group."""


def walk(kernel: GridKernel) -> None:
  """Run a kernel in one grid step."""
  g = kernel.g
  n, i = pl.program_id(1), pl.program_id(2)
  step = Step(row_block=i, is_first=(n == 0) & (i == 0))
  pl.when(step.is_first)(kernel.start)
  _for_each_sublane_tile(g, kernel.refs, partial(_walk_tile, kernel, step))

  @pl.when((n == g.grid[1] - 1) & (i == g.grid[2] - 1))
  def _():
    if g.groups == 1:
      kernel.finish(0)
    else:
      pl.loop(0, g.groups)(kernel.finish)


def _walk_tile(kernel: GridKernel, step: Step, tile: SublaneTile) -> None:
  kernel.fill(step, tile)
  shared = kernel.prepare(step, tile)
  for sweep in kernel.sweeps(step):
    sums = [kernel.zero_sums() for _ in tile.groups]
    for start, stop, tap_rows in sweep.ranges:
      row = partial(_walk_row, kernel, tile, shared, sweep.phase, tap_rows)
      sums = loop(start, stop, row, sums, kernel.g.blocks.unroll)
    for group, group_sums in zip(tile.groups, sums, strict=True):
      kernel.add_sums(group, group_sums)


def _walk_row(
  kernel: GridKernel, tile, shared, phase, tap_rows, position, sums
):
  width, step = kernel.width

  def compute(first, count, sums, rest=0):
    columns = rest or count * step
    index = TileIndex(position, phase, tap_rows, first, columns)
    return kernel.compute(tile, shared, index, sums)

  full, rest = divmod(width, step)
  sums = _for_each_chunk(kernel.g, full, compute, sums)
  return compute(full, 1, sums, rest) if rest else sums


def _for_each_sublane_tile(
  g: Geometry, refs, body: Callable[[SublaneTile], None]
) -> None:
  """Call `body` for each sublane tile of a step that is not empty."""
  c, n = pl.program_id(0), pl.program_id(1)
  step = n if g.channels_in_lanes else c
  size, packed = g.blocks.sublanes, g.blocks.packed
  present = jnp.minimum(size, g.sublane_size - step * size)

  @pl.loop(0, pl.cdiv(present, packed))
  def _(number):
    first = step * size + number * packed
    sublanes = pl.ds(pl.multiple_of(number * packed, packed), packed)
    if g.channels_in_lanes:
      groups = [0]
      masks = batch_masks(first, g.batch, packed, unpack_scratch_of(refs))
    else:
      groups = [number * g.registers + r for r in range(g.registers)]
      masks = _lane_masks(g, n)
    body(SublaneTile(number, sublanes, first, groups, masks))


def _lane_masks(g: Geometry, n) -> Masks:
  if g.batch % LANES == 0:
    return None
  lane = lax.broadcasted_iota(jnp.int32, TILE, 1)
  return [lane + n * LANES < g.batch] * g.registers


def _for_each_chunk(g: Geometry, width: int, body, carry):
  """Call `body(first, size, carry)` for chunks of whole Winograd tiles."""
  if g.algorithm is None:
    return column_chunks(width, g.blocks.columns, body, carry)
  tile = g.algorithm.outputs

  def tiles(first, size, carry):
    columns = size * tile
    if isinstance(first, int):
      columns = min(columns, width - first * tile)
    return body(first * tile, columns, carry)

  long = width > UNROLLED
  return column_chunks(
    pl.cdiv(width, tile),
    max(g.blocks.columns // tile, 1),
    tiles,
    carry,
    looped=width // tile if long else 0,
  )


def image_counts(g: Geometry, unpack_scratch) -> jax.Array:
  """Count the images that each value of a register of sums has added up."""
  if g.channels_in_lanes:
    image, period = sublane_images(unpack_scratch), SUBLANES
  else:
    image, period = lax.broadcasted_iota(jnp.int32, TILE, 1), LANES
  # Images n of the batch with n % period == image. lax.div, because `//` on a
  # tracer queries the device.
  return lax.div(g.batch - image + period - 1, period)


def channel_totals(g: Geometry, sums: jax.Array) -> jax.Array:
  """Add up the values of each channel in a register."""
  return jnp.sum(sums, 0 if g.channels_in_lanes else 1, keepdims=True)
