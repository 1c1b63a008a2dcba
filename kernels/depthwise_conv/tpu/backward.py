"""The backward kernel: all gradients in one pass over x, y and dy.

The cotangent of the convolution's output is `dy` plus, through the moments, an
affine function of y per channel. A grid step writes this sum, for its own
outputs and for the halo, to a buffer with a border of zeros (`geometry.py` has
a picture). Then it walks over its inputs: the outputs that an input contributed
to give the gradient of the input, and its part of the filter's gradient.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ...common.activation import transcendentals
from ...common.moments import Moments
from ...common.tpu_prologue import Prologue
from ...tpu.pallas_call import tpu_call
from ...tpu.registers import (
  TILE,
  Registers,
  load,
  masked,
  pair_masks,
  store,
  zeros,
)
from ..settings import Gradients
from .backward_tile import (
  PrologueSums,
  gradients,
  gradients_winograd,
  prologue_gradients,
)
from .band_halo import (
  band_halo_masks,
  band_halo_operands,
  band_halo_sources,
)
from .buffer import backward_buffer
from .channel_vectors import (
  ChannelInputs,
  ChannelOutputs,
  FilterRegisters,
  channel_bytes,
  present,
)
from .geometry import Geometry, double_buffer_bytes, unpack_scratch_of
from .grid_walk import (
  GridKernel,
  Step,
  SublaneTile,
  Sweep,
  TileIndex,
  channel_totals,
  walk,
)
from .row_fills import Source, Sources, fill, plan_fills
from .row_writer import RowWriter, clear_border
from .taps import TapRange, input_ranges, output_columns, phase_taps, reach
from .winograd import Values


def backward(
  x: jax.Array,  # [h, w, n, c] or [h, w, c, n]
  filters: jax.Array,  # [k, k, c]
  scale: jax.Array | None,  # [c]
  offset: jax.Array | None,  # [c]
  y: jax.Array | None,  # [ho, wo, n, c] or [ho, wo, c, n]
  moments: Moments | None,
  dy: jax.Array,  # [ho, wo, n, c] or [ho, wo, c, n]
  dmoments: Moments | None,
  g: Geometry,
  vmem_limit_bytes: int,
) -> Gradients:
  """Compute the gradients of x, filters, scale and offset, in their dtypes.

  With several bands the filters' gradient is float32.
  """
  buffer = backward_buffer(g)
  vectors = {
    "scale": scale,
    "offset": offset,
    "mean": moments and moments.mean,
    "dmean": dmoments and dmoments.mean,
    "dm2": dmoments and dmoments.m2,
    **band_halo_masks(buffer.reach, g),
  }
  inputs = ChannelInputs(g, present(vectors))
  # The caller still adds up the bands, so that rounding has to wait.
  filters_dtype = filters.dtype if g.bands == 1 else jnp.dtype(jnp.float32)
  names = present({"dscale": scale, "doffset": offset})
  outputs = ChannelOutputs(g, filters_dtype, names)
  read = {"dy": dy} if y is None else {"y": y, "dy": dy}
  halo = {
    f"{name}_halo{j}": (array, g.output_row(row))
    for j, row in enumerate(buffer.fetched_rows())
    for name, array in read.items()
  }
  sums = pltpu.VMEM((g.groups, *TILE), jnp.float32)
  filter_sums = g.groups, g.rows.kernel_size, g.filter_columns, *TILE
  results = tpu_call(
    lambda refs: walk(_Backward(inputs, outputs, refs)),
    name="depthwise_conv_bn_backward",
    grid=g.grid,
    inputs={
      "x": (x, g.input_block()),
      **{name: (array, g.output_block()) for name, array in read.items()},
      **band_halo_operands(read, g.output_shape, buffer.reach, g),
      **halo,
      **inputs.operands(filters, vectors),
    },
    outputs={
      "dx": (x.shape, x.dtype, g.input_block()),
      **outputs.results(),
    },
    scratch={
      "cotangent": buffer.scratch(),
      "filter_sums": pltpu.VMEM(filter_sums, jnp.float32),
      "scale_sums": sums,
      "offset_sums": sums,
      **g.unpack_scratch(x.dtype, g.blocks.columns * g.cols.stride),
    },
    vmem_limit_bytes=vmem_limit_bytes,
    cost=_cost(x, dy, g),
  )
  arrays = outputs.arrays(results)
  return (
    results["dx"],
    arrays["dfilters"],
    arrays.get("dscale"),
    arrays.get("doffset"),
  )


def _cost(x, dy, g) -> pl.CostEstimate:
  outputs = (1 + g.moments) * dy.size
  return pl.CostEstimate(
    flops=4 * g.rows.kernel_size**2 * dy.size + 16 * x.size,
    transcendentals=x.size * transcendentals(g.activation),
    bytes_accessed=(2 * x.size + outputs) * x.dtype.itemsize,
  )


def vmem_bytes(g: Geometry, dtype: jnp.dtype) -> int:
  """Compute the VMEM of a grid step."""
  buffer = backward_buffer(g)
  row = double_buffer_bytes((1, *g.output_shape[1:]), dtype)
  return (
    2 * double_buffer_bytes(g.input_shape, dtype)
    + (1 + g.moments) * double_buffer_bytes(g.output_shape, dtype)
    + (1 + g.moments) * buffer.extra_rows * row
    + buffer.bytes
    + channel_bytes(g)
    + g.unpack_scratch_bytes(dtype, g.blocks.columns * g.cols.stride)
  )


class _Shared(NamedTuple):
  """Values that all columns of a sublane tile share, per channel group."""

  prologues: list[Prologue]
  filters: list[FilterRegisters]


class _Backward(GridKernel[_Shared, PrologueSums]):
  """Steps of the backward kernel."""

  @property
  def width(self) -> tuple[int, int]:
    """Input columns, in cells of `stride`."""
    return self.g.cols.size, self.g.cols.stride

  def start(self) -> None:
    """Clear the buffer's border and the sums."""
    refs = self.refs
    clear_border(backward_buffer(self.g), refs.cotangent)
    for ref in (refs.filter_sums, refs.scale_sums, refs.offset_sums):
      ref[...] = jnp.zeros_like(ref)

  def fill(self, step: Step, tile: SublaneTile) -> None:
    """Write the cotangents of the convolution's output to the buffer."""
    inputs, refs, buffer = self.inputs, self.refs, backward_buffer(self.g)
    names = ["y", "dy"] if self.g.moments else ["dy"]
    masks = tile.masks
    if unpack_scratch_of(refs) is not None:
      masks = pair_masks(tile.first, self.g.batch)

    def through_moments(y: Registers, dy: Registers) -> Registers:
      sums = []
      for r in range(len(y)):
        slope, constant = affine[r % len(affine)]
        sums.append(slope * y[r] + (dy[r] + constant))
      return masked(sums, masks)

    cotangent: Callable[..., Registers] = partial(masked, masks=masks)
    if self.g.moments:
      affine = [self._moments_affine(group) for group in tile.groups]
      cotangent = through_moments

    def source(suffix: str = "") -> Source:
      return Source([getattr(refs, f"{n}{suffix}") for n in names], cotangent)

    halo = [source(f"_halo{j}") for j in range(len(buffer.fetched_rows()))]
    bands = band_halo_sources(inputs, refs, names, tile.groups[0], cotangent)
    sources = Sources(source(), halo, bands)
    fill(
      RowWriter(buffer, refs.cotangent, tile.sublanes, unpack_scratch_of(refs)),
      plan_fills(buffer, sources, step.row_block),
    )

  def _moments_affine(self, group) -> tuple[jax.Array, jax.Array]:
    """Compute the cotangent of y through the moments: slope and constant."""
    g = self.g
    mean, dmean, dm2 = (
      self.inputs.vector(self.refs, name, group)
      for name in ("mean", "dmean", "dm2")
    )
    slope = 2 * dm2
    count = g.rows.out * g.bands * g.cols.out * g.batch
    return slope, dmean / count - slope * mean

  def prepare(self, step: Step, tile: SublaneTile) -> _Shared:
    """Load the prologues and the filters."""
    inputs, refs = self.inputs, self.refs
    return _Shared(
      [inputs.prologue(refs, group) for group in tile.groups],
      [
        inputs.filter_registers(refs, group, reverse=True)
        for group in tile.groups
      ],
    )

  def sweeps(self, step: Step) -> Iterator[Sweep]:
    """List the input rows, a sweep for each range of each phase."""
    for phase in range(self.g.rows.stride):
      for positions in self._ranges(step, phase):
        yield Sweep(phase, [positions])

  def _ranges(self, step: Step, phase: int) -> list[TapRange]:
    g = self.g
    if g.trims_rows:
      return input_ranges(g.rows, phase)
    rows: Any = g.rows.size
    if not g.whole:
      rows = jnp.minimum(g.in_rows, g.rows.size - step.row_block * g.in_rows)
    # lax.div, because `//` on a tracer queries the device.
    stop = lax.div(rows - phase + g.rows.stride - 1, g.rows.stride)
    return [TapRange(0, stop, phase_taps(g.rows, phase))]

  def zero_sums(self) -> PrologueSums:
    """Make the sums of one channel group at the start of a sweep."""
    return PrologueSums(zeros(), zeros())

  def compute(
    self,
    tile: SublaneTile,
    shared: _Shared,
    index: TileIndex,
    sums: list[PrologueSums],
  ) -> list[PrologueSums]:
    """Compute and store dx of a tile, and add to all sums."""
    refs, stride = self.refs, self.g.rows.stride
    row, first = index.position * stride + index.phase, index.first * stride
    scratch = unpack_scratch_of(refs)
    x = load(refs.x, row, first, index.columns, tile.sublanes, scratch)
    x = [masked(registers, tile.masks) for registers in x]
    dx, sums = [], list(sums)
    for r in range(len(x[0])):
      which = r % len(tile.groups)
      prologue, filters = shared.prologues[which], shared.filters[which]
      columns = [registers[r] for registers in x]
      activated = [prologue.with_slope(register) for register in columns]
      z, slopes = [z for z, _ in activated], [slope for _, slope in activated]
      group = tile.groups[which]
      dz = self._gradients(index, r, filters, z, group)
      values, sums[which] = prologue_gradients(
        prologue, columns, slopes, dz, sums[which]
      )
      dx.append(values)
    by_column = [list(registers) for registers in zip(*dx, strict=True)]
    store(refs.dx, row, first, tile.sublanes, by_column, scratch)
    return sums

  def _gradients(
    self,
    index: TileIndex,
    r: int,
    filters: FilterRegisters,
    z: Registers,
    group,
  ) -> Values:
    """Compute dz of register r of a tile's columns, and add to the filter's."""
    g, algorithm = self.g, self.g.algorithm
    (above, _), (left, _) = reach(g.rows), reach(g.cols)
    rows = {
      a: index.position
      + (index.phase + g.rows.low - a) // g.rows.stride
      + above
      for a in index.tap_rows
    }
    if algorithm:
      start = lax.div(index.first, algorithm.outputs) * algorithm.points
    else:
      start = index.first + left

    def read(tap_row: int, column: int) -> jax.Array:
      return self.refs.cotangent[rows[tap_row], start + column, r]

    def add_to_filter(tap_row: int, column: int, value: jax.Array) -> None:
      self.refs.filter_sums[group, tap_row, column] += value

    if algorithm:
      return gradients_winograd(
        read, filters, z, index.tap_rows, algorithm, add_to_filter
      )
    meetings = output_columns(g.cols, index.first, index.columns)
    return gradients(read, filters, z, index.tap_rows, meetings, add_to_filter)

  def add_sums(self, group, sums: PrologueSums) -> None:
    """Add the sums of a sweep to those of all steps."""
    self.refs.scale_sums[group] += sums.scale
    self.refs.offset_sums[group] += sums.offset

  def finish(self, group) -> None:
    """Write the gradients of a group's filters, scale and offset."""
    g, refs = self.g, self.refs
    taps = [
      [
        channel_totals(g, refs.filter_sums[group, a, j])
        for j in range(g.filter_columns)
      ]
      for a in range(g.rows.kernel_size)
    ]
    if g.algorithm is not None:
      taps = [g.algorithm.filter_transposed(row)[::-1] for row in taps]
    factor = Prologue(None, None, g.activation).slope_factor
    vectors = {
      "dscale": factor * channel_totals(g, refs.scale_sums[group]),
      "doffset": factor * channel_totals(g, refs.offset_sums[group]),
    }
    self.outputs.write(refs, group, vectors, taps)
