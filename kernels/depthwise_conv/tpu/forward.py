"""The forward kernel: prologue, convolution and moments in one pass.

A grid step has some rows of some images and channels in VMEM. It writes the
activated rows to a float32 buffer with a border of zeros, then convolves row
by row, some columns at a time.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ...common.moments import Moments
from ...tpu.loops import loop
from ...tpu.pallas_call import tpu_call
from ...tpu.registers import TILE, store, zeros
from .band_halo import edge_rows, edge_vectors, edges_of
from .buffer import forward_buffer
from .channel_vectors import Given, Wanted, given_names, vector_bytes
from .geometry import Geometry, stage_of, vmem_of
from .grid_walk import (
  Masks,
  Part,
  distinct,
  for_each_chunk,
  for_each_group,
  for_each_part,
  images_of,
  per_register,
  total,
)
from .taps import Range, output_ranges
from .winograd import plus


def forward(
  x: jax.Array,  # [h, w, n, c] or [h, w, c, n]
  filters: jax.Array,  # [k, k, c]
  scale: jax.Array | None,  # [c]
  offset: jax.Array | None,  # [c]
  g: Geometry,
  vmem_limit_bytes: int,
) -> tuple[jax.Array, Moments]:
  """See `podscale.kernels.depthwise_conv_bn`."""
  buffer = forward_buffer(g)
  vectors = {"scale": scale, "offset": offset, **edge_vectors(buffer.reach, g)}
  given = Given(g, given_names(vectors))
  wanted = Wanted(g, None, ("mean", "m2"))
  halo = {f"halo{j}": (x, g.input_row(r)) for j, r in enumerate(buffer.halo())}
  y_shape = (g.rows.out, g.cols.out, *x.shape[2:])
  sums = pltpu.VMEM((g.groups, *TILE), jnp.float32)
  results = tpu_call(
    partial(_kernel, given, wanted),
    name="depthwise_conv_bn_forward",
    grid=g.grid,
    inputs={
      "x": (x, g.input_block()),
      **halo,
      **edge_rows({"x": x}, g.input_shape, buffer.reach, g),
      **given.operands(filters, vectors),
    },
    outputs={
      "y": (y_shape, x.dtype, g.output_block()),
      **wanted.outputs(),
    },
    scratch={
      "activated": buffer.scratch(),
      "sums": sums,
      "squares": sums,
      "pivot": sums,
      **g.stage(x.dtype, g.blocks.columns),
    },
    vmem_limit_bytes=vmem_limit_bytes,
    cost=_cost(x, y_shape, g),
  )
  moments = wanted.arrays(results)
  count = jnp.float32(g.rows.out * g.cols.out * g.batch)
  return results["y"], Moments(count, moments["mean"], moments["m2"])


def vmem_bytes(g: Geometry, dtype: jnp.dtype) -> int:
  """What a grid step takes of VMEM."""
  buffer = forward_buffer(g)
  return (
    vmem_of(g.input_shape, dtype)
    + vmem_of(g.output_shape, dtype)
    + buffer.other_rows * vmem_of((1, *g.input_shape[1:]), dtype)
    + buffer.bytes
    + vector_bytes(g)
    + g.stage_bytes(dtype, g.blocks.columns)
  )


def _cost(x, y_shape, g) -> pl.CostEstimate:
  outputs = y_shape[0] * y_shape[1] * y_shape[2] * y_shape[3]
  return pl.CostEstimate(
    flops=outputs * (2 * g.rows.kernel_size**2 + 4) + 4 * x.size,
    transcendentals=x.size if g.activation == "silu" else 0,
    bytes_accessed=(x.size + outputs) * x.dtype.itemsize,
  )


class _Sums(NamedTuple):
  """Of the outputs' deviations from the pivot, and of their squares."""

  first: jax.Array
  second: jax.Array


def _kernel(given: Given, wanted: Wanted, refs) -> None:
  g = given.g
  n, i = pl.program_id(1), pl.program_id(2)
  start = (n == 0) & (i == 0)

  @pl.when(start)
  def _start():
    forward_buffer(g).clear_border(refs.activated)
    for ref in (refs.sums, refs.squares, refs.pivot):
      ref[...] = jnp.zeros_like(ref)

  def part(q, part: Part):
    groups = distinct(g, part.groups)
    filters = [given.products(refs, group) for group in groups]
    _activate(given, refs, i, part)
    # Images in the sublanes share their channels, and the first has the pivot.
    first = start & (q == 0) if g.channels_in_lanes else start

    @pl.when(first)
    def _pivot():
      _take_pivot(g, refs, filters, part)

    _convolve(g, refs, i, filters, part)

  for_each_part(g, refs, part)

  @pl.when((n == g.grid[1] - 1) & (i == g.grid[2] - 1))
  def _finish():
    for_each_group(g, partial(_write_moments, g, wanted, refs))


def _activate(given: Given, refs, i, part: Part) -> None:
  """Fills the buffer with what the taps of this step read."""
  g = given.g
  groups = distinct(g, part.groups)
  prologues = [given.prologue(refs, group) for group in groups]
  stage = stage_of(refs)

  def function(registers):
    # A pair of columns has two registers, of the same channels.
    each = per_register(registers, prologues)
    return [f(register) for f, register in zip(each, registers, strict=True)]

  buffer = forward_buffer(g)
  halos = [[getattr(refs, f"halo{j}")] for j in range(len(buffer.halo()))]
  buffer.fill(
    refs.activated,
    [refs.x],
    halos,
    edges_of(given, refs, ["x"], groups[0], function),
    function,
    i,
    part.sublanes,
    stage,
  )


def _row_ranges(g: Geometry, i) -> list[Range]:
  if g.trims_rows:
    return output_ranges(g.rows)
  every = tuple(range(g.rows.kernel_size))
  there = jnp.minimum(g.out_rows, g.rows.out - i * g.out_rows)
  return [Range(0, g.out_rows if g.whole else there, every)]


def _convolve(g: Geometry, refs, i, filters, part: Part) -> None:
  """Outputs of this step, and what they add to the moments."""
  groups = distinct(g, part.groups)
  pivots = [refs.pivot[group] for group in groups]

  def row(taps, row, sums):
    def chunk(first, size, sums):
      columns = _outputs(g, refs, filters, taps, row, first, size)
      store(refs.y, row, first, part.sublanes, columns, stage_of(refs))
      return _add_moments(columns, pivots, part.masks, sums)

    return for_each_chunk(g, g.cols.out, chunk, sums)

  sums = [_Sums(zeros(), zeros()) for _ in groups]
  for start, stop, taps in _row_ranges(g, i):
    sums = loop(start, stop, partial(row, taps), sums, g.blocks.turns)
  for group, (first, second) in zip(groups, sums, strict=True):
    refs.sums[group] += first
    refs.squares[group] += second


def _outputs(g: Geometry, refs, filters, taps, row, first, size):
  """Registers of `size` columns of an output row, from column `first`."""
  each = per_register([0] * g.registers, filters)
  compute = _direct if g.algorithm is None else _by_tiles
  by_register = [
    compute(g, refs.activated, each[p], taps, row, first, size, p)
    for p in range(g.registers)
  ]
  return [list(registers) for registers in zip(*by_register, strict=True)]


def _direct(g, activated, filters, taps, row, first, size, p):
  """Registers of `size` columns of an output row, each tap by itself."""
  stride, kernel = g.cols.stride, g.cols.kernel_size
  sums = [None] * size
  for a in taps:
    for j in range((size - 1) * stride + kernel):
      if _in_padding(g, first, j):
        continue
      z = activated[row * g.rows.stride + a, first * stride + j, p]
      for col in range(size):
        b = j - col * stride
        if 0 <= b < kernel:
          sums[col] = plus(sums[col], z * filters[a][b])
  return sums


def _in_padding(g, first, j) -> bool:
  """Whether buffer column j of a chunk is known to be one of zeros."""
  if not isinstance(first, int):
    return False
  return not 0 <= first * g.cols.stride + j - g.cols.low < g.cols.size


def _by_tiles(g, activated, filters, taps, row, first, size, p):
  """As `_direct`, by minimal filtering."""
  tile, points = g.algorithm.outputs, g.algorithm.points
  tiles = range(pl.cdiv(size, tile))
  start = lax.div(first, tile) * points
  products = [[None] * points for _ in tiles]
  for j in range(points):
    for a in taps:
      for t in tiles:
        z = activated[row + a, start + t * points + j, p]
        products[t][j] = plus(products[t][j], z * filters[a][j])
  columns = [
    column
    for values in products
    for column in g.algorithm.output_transform(values)
  ]
  return columns[:size]


def _add_moments(columns, pivots, masks: Masks, sums: list[_Sums]):
  sums = list(sums)
  for registers in columns:
    for p, register in enumerate(registers):
      which = p % len(sums)
      deviation = register - pivots[which]
      if masks is not None:
        deviation = jnp.where(masks[p], deviation, 0.0)
      first, second = sums[which]
      sums[which] = _Sums(first + deviation, second + deviation * deviation)
  return sums


def _take_pivot(g: Geometry, refs, filters, part: Part) -> None:
  """A value near the mean of each sublane's outputs: one of them.

  Sums of deviations from it do not cancel, however far the mean is from zero
  in standard deviations.
  """
  tile = g.algorithm.outputs if g.algorithm else 1
  row, col = g.out_rows // 2, g.cols.out // 2 // tile * tile
  every = tuple(range(g.rows.kernel_size))
  ((*registers,),) = _outputs(g, refs, filters, every, row, col, 1)
  for p, group in enumerate(distinct(g, part.groups)):
    register = registers[p]
    if part.masks is not None:
      register = jnp.where(part.masks[p], register, 0.0)
    refs.pivot[group] = register


def _write_moments(g: Geometry, wanted: Wanted, refs, group) -> None:
  """Merges what a register has (Chan, Golub and LeVeque 1979)."""
  pixels = g.rows.out * g.cols.out
  count = (images_of(g, stage_of(refs)) * pixels).astype(jnp.float32)
  sums = refs.sums[group]
  shift = sums / jnp.maximum(count, 1)
  means = refs.pivot[group] + shift
  squares = refs.squares[group] - sums * shift
  mean = total(g, count * means) / (g.batch * pixels)
  between = count * jnp.square(means - mean)
  m2 = total(g, squares + between)
  wanted.write(refs, group, {"mean": mean, "m2": m2})
