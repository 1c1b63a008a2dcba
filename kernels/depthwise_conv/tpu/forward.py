"""The forward kernel: prologue, convolution and moments in one pass.

A grid step writes its activated rows to a buffer with a border of zeros
(`geometry.py` has a picture), then convolves row by row, tile by tile.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ...common.activation import transcendentals
from ...common.moments import Moments
from ...tpu.pallas_call import tpu_call
from ...tpu.registers import TILE, Registers, store, zeros
from .band_halo import (
  band_halo_masks,
  band_halo_operands,
  band_halo_sources,
)
from .buffer import forward_buffer
from .channel_vectors import (
  ChannelInputs,
  ChannelOutputs,
  FilterRegisters,
  channel_bytes,
  present,
)
from .forward_tile import convolve, convolve_winograd
from .geometry import Geometry, double_buffer_bytes, unpack_scratch_of
from .grid_walk import (
  GridKernel,
  Step,
  SublaneTile,
  Sweep,
  TileIndex,
  channel_totals,
  image_counts,
  walk,
)
from .row_fills import Source, Sources, fill, plan_fills
from .row_writer import RowWriter, clear_border
from .taps import TapRange, output_ranges


def forward(
  x: jax.Array,  # [h, w, n, c] or [h, w, c, n]
  filters: jax.Array,  # [k, k, c]
  scale: jax.Array | None,  # [c]
  offset: jax.Array | None,  # [c]
  g: Geometry,
  vmem_limit_bytes: int,
) -> tuple[jax.Array, Moments | None]:
  """See `podscale.kernels.depthwise_conv_bn`."""
  buffer = forward_buffer(g)
  vectors = {
    "scale": scale,
    "offset": offset,
    **band_halo_masks(buffer.reach, g),
  }
  inputs = ChannelInputs(g, present(vectors))
  outputs = ChannelOutputs(g, None, ("mean", "m2") if g.moments else ())
  y_shape = (g.rows.out, g.cols.out, *x.shape[2:])
  sums = pltpu.VMEM((g.groups, *TILE), jnp.float32)
  results = tpu_call(
    lambda refs: walk(_Forward(inputs, outputs, refs)),
    name="depthwise_conv_bn_forward",
    grid=g.grid,
    inputs={
      "x": (x, g.input_block()),
      **{
        f"halo{j}": (x, g.input_row(row))
        for j, row in enumerate(buffer.fetched_rows())
      },
      **band_halo_operands({"x": x}, g.input_shape, buffer.reach, g),
      **inputs.operands(filters, vectors),
    },
    outputs={
      "y": (y_shape, x.dtype, g.output_block()),
      **outputs.results(),
    },
    scratch={
      "activated": buffer.scratch(),
      **{name: sums for name in _SUMS if g.moments},
      **g.unpack_scratch(x.dtype, g.blocks.columns),
    },
    vmem_limit_bytes=vmem_limit_bytes,
    cost=_cost(x, y_shape, g),
  )
  if not g.moments:
    return results["y"], None
  moments = outputs.arrays(results)
  count = jnp.float32(g.rows.out * g.cols.out * g.batch)
  return results["y"], Moments(count, moments["mean"], moments["m2"])


def vmem_bytes(g: Geometry, dtype: jnp.dtype) -> int:
  """Compute the VMEM of a grid step."""
  buffer = forward_buffer(g)
  row = double_buffer_bytes((1, *g.input_shape[1:]), dtype)
  return (
    double_buffer_bytes(g.input_shape, dtype)
    + double_buffer_bytes(g.output_shape, dtype)
    + buffer.extra_rows * row
    + buffer.bytes
    + channel_bytes(g)
    + g.unpack_scratch_bytes(dtype, g.blocks.columns)
  )


def _cost(x, y_shape, g) -> pl.CostEstimate:
  outputs = y_shape[0] * y_shape[1] * y_shape[2] * y_shape[3]
  return pl.CostEstimate(
    flops=outputs * (2 * g.rows.kernel_size**2 + 4) + 4 * x.size,
    transcendentals=x.size * transcendentals(g.activation),
    bytes_accessed=(x.size + outputs) * x.dtype.itemsize,
  )


_SUMS = "sums", "squares", "shift"


class _Shared(NamedTuple):
  """Registers that all columns of a sublane tile share, per channel group."""

  filters: list[FilterRegisters]
  shifts: Registers


class _Sums(NamedTuple):
  """Sums of the outputs' deviations from the shift, and of their squares."""

  deviations: jax.Array
  squares: jax.Array


class _Forward(GridKernel[_Shared, _Sums]):
  """Steps of the forward kernel."""

  @property
  def width(self) -> tuple[int, int]:
    """Output columns, one by one."""
    return self.g.cols.out, 1

  def start(self) -> None:
    """Clear the buffer's border, the sums and the shift."""
    refs = self.refs
    clear_border(forward_buffer(self.g), refs.activated)
    if self.g.moments:
      for ref in (refs.sums, refs.squares, refs.shift):
        ref[...] = jnp.zeros_like(ref)

  def fill(self, step: Step, tile: SublaneTile) -> None:
    """Write the activated rows to the buffer."""
    inputs, refs, buffer = self.inputs, self.refs, forward_buffer(self.g)
    prologues = [inputs.prologue(refs, group) for group in tile.groups]

    def activate(registers: Registers) -> Registers:
      return [
        prologues[r % len(prologues)](register)
        for r, register in enumerate(registers)
      ]

    sources = Sources(
      Source([refs.x], activate),
      [
        Source([getattr(refs, f"halo{j}")], activate)
        for j in range(len(buffer.fetched_rows()))
      ],
      band_halo_sources(inputs, refs, ["x"], tile.groups[0], activate),
    )
    fill(
      RowWriter(buffer, refs.activated, tile.sublanes, unpack_scratch_of(refs)),
      plan_fills(buffer, sources, step.row_block),
    )

  def prepare(self, step: Step, tile: SublaneTile) -> _Shared:
    """Load the filters and the shifts; choose the shifts in the first step."""
    refs = self.refs
    filters = [
      self.inputs.filter_registers(refs, group) for group in tile.groups
    ]
    if not self.g.moments:
      return _Shared(filters, [])
    # With images in the sublanes all tiles share channels, and with them the
    # shift of the first tile.
    is_first = step.is_first
    if self.g.channels_in_lanes:
      is_first = is_first & (tile.number == 0)
    pl.when(is_first)(lambda: self._choose_shifts(tile, filters))
    return _Shared(filters, [refs.shift[group] for group in tile.groups])

  def _choose_shifts(
    self, tile: SublaneTile, filters: list[FilterRegisters]
  ) -> None:
    """Choose one output per sublane and lane as the shift of the moments.

    Sums of deviations from a value near the mean do not cancel, however many
    standard deviations the mean is from zero.
    """
    g = self.g
    # A Winograd tile starts at a multiple of its outputs.
    step = g.algorithm.outputs if g.algorithm else 1
    middle = TileIndex(
      position=g.out_rows // 2,
      phase=0,
      tap_rows=tuple(range(g.rows.kernel_size)),
      first=g.cols.out // 2 // step * step,
      columns=1,
    )
    ((*registers,),) = self._convolve(middle, filters)
    for r, group in enumerate(tile.groups):
      register = registers[r]
      if tile.masks is not None:
        register = jnp.where(tile.masks[r], register, 0.0)
      self.refs.shift[group] = register

  def sweeps(self, step: Step) -> Iterator[Sweep]:
    """List all output rows as one sweep."""
    g = self.g
    if g.trims_rows:
      ranges = output_ranges(g.rows)
    else:
      stop: Any = g.out_rows
      if not g.whole:
        stop = jnp.minimum(stop, g.rows.out - step.row_block * stop)
      ranges = [TapRange(0, stop, tuple(range(g.rows.kernel_size)))]
    yield Sweep(0, ranges)

  def zero_sums(self) -> _Sums:
    """Make the sums of one channel group at the start of a sweep."""
    return _Sums(zeros(), zeros())

  def compute(
    self,
    tile: SublaneTile,
    shared: _Shared,
    index: TileIndex,
    sums: list[_Sums],
  ) -> list[_Sums]:
    """Convolve and store a tile, and add it to the sums."""
    columns = self._convolve(index, shared.filters)
    scratch = unpack_scratch_of(self.refs)
    position = index.position, index.first, tile.sublanes
    store(self.refs.y, *position, columns, scratch)
    if not self.g.moments:
      return sums
    return _add_deviations(columns, shared.shifts, tile.masks, sums)

  def _convolve(
    self, index: TileIndex, filters: list[FilterRegisters]
  ) -> list[Registers]:
    """Convolve a tile, to a list of registers per output column."""
    by_register = [
      self._convolve_register(index, r, filters[r % len(filters)])
      for r in range(self.g.registers)
    ]
    return [list(registers) for registers in zip(*by_register, strict=True)]

  def _convolve_register(
    self, index: TileIndex, r: int, filters: FilterRegisters
  ) -> Registers:
    g, algorithm, stride = self.g, self.g.algorithm, self.g.rows.stride
    if algorithm:
      start = lax.div(index.first, algorithm.outputs) * algorithm.points
    else:
      start = index.first * stride

    def read(tap_row: int, column: int) -> jax.Array:
      row = index.position * stride + tap_row
      return self.refs.activated[row, start + column, r]

    if algorithm:
      return convolve_winograd(
        read, filters, index.tap_rows, index.columns, algorithm
      )
    read_columns = range((index.columns - 1) * stride + g.cols.kernel_size)
    padding = [
      j
      for j in read_columns
      if isinstance(start, int)
      and not 0 <= start + j - g.cols.low < g.cols.size
    ]
    return convolve(
      read, filters, index.tap_rows, index.columns, stride, padding
    )

  def add_sums(self, group, sums: _Sums) -> None:
    """Add the sums of a sweep to those of all steps."""
    if self.g.moments:
      self.refs.sums[group] += sums.deviations
      self.refs.squares[group] += sums.squares

  def finish(self, group) -> None:
    """Merge the moments of a group's registers (Chan, Golub, LeVeque 1979)."""
    g, refs = self.g, self.refs
    if not g.moments:
      return
    pixels = g.rows.out * g.cols.out
    images = image_counts(g, unpack_scratch_of(refs))
    count = (images * pixels).astype(jnp.float32)
    deviations = refs.sums[group]
    mean_deviation = deviations / jnp.maximum(count, 1)
    means = refs.shift[group] + mean_deviation
    within = refs.squares[group] - deviations * mean_deviation
    mean = channel_totals(g, count * means) / (g.batch * pixels)
    between = count * jnp.square(means - mean)
    m2 = channel_totals(g, within + between)
    self.outputs.write(refs, group, {"mean": mean, "m2": m2})


def _add_deviations(
  columns: list[Registers], shifts: Registers, masks, sums: list[_Sums]
) -> list[_Sums]:
  sums = list(sums)
  for registers in columns:
    for r, register in enumerate(registers):
      group = r % len(sums)
      deviation = register - shifts[group]
      if masks is not None:
        deviation = jnp.where(masks[r], deviation, 0.0)
      total, squares = sums[group]
      sums[group] = _Sums(total + deviation, squares + deviation * deviation)
  return sums
