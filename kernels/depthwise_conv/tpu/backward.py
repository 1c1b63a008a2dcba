"""The backward kernel: all gradients in one pass over x, y and dy.

What comes back to the convolution is `dy`, and through the moments an affine
of y per channel. A grid step writes their sum, for its own outputs and those
around them, to a float32 buffer with a border of zeros. Then it goes over its
inputs: each meets the outputs that it had a part in, which gives its own
gradient and its part of the filters'.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ...common.moments import Moments
from ...common.tpu_prologue import Prologue
from ...tpu.loops import loop
from ...tpu.pallas_call import tpu_call
from ...tpu.registers import TILE, load, masked, pair_masks, store, zeros
from ..settings import Gradients
from .band_halo import edge_rows, edge_vectors, edges_of
from .buffer import backward_buffer, reach
from .channel_vectors import Given, Taps, Wanted, given_names, vector_bytes
from .geometry import Geometry, stage_of, vmem_of
from .grid_walk import (
  Masks,
  Part,
  distinct,
  for_each_chunk,
  for_each_group,
  for_each_part,
  per_register,
  total,
)
from .taps import Range, input_ranges, phase_taps
from .winograd import plus


def backward(
  x: jax.Array,  # [h, w, n, c] or [h, w, c, n]
  filters: jax.Array,  # [k, k, c]
  scale: jax.Array | None,  # [c]
  offset: jax.Array | None,  # [c]
  y: jax.Array,  # as x, with ho and wo
  moments: Moments,
  dy: jax.Array,  # as y
  dmoments: Moments,
  g: Geometry,
  vmem_limit_bytes: int,
) -> Gradients:
  """The gradients of x, filters, scale and offset.

  In their dtypes; that of the filters of several bands in float32.
  """
  buffer = backward_buffer(g)
  vectors = {
    "scale": scale,
    "offset": offset,
    "mean": moments.mean,
    "dmean": dmoments.mean,
    "dm2": dmoments.m2,
    **edge_vectors(buffer.reach, g),
  }
  given = Given(g, given_names(vectors))
  names = given_names({"dscale": scale, "doffset": offset})
  # The sum over bands is still to come.
  taps = filters.dtype if g.bands == 1 else jnp.dtype(jnp.float32)
  wanted = Wanted(g, taps, names)
  inputs = {
    "x": (x, g.input_block()),
    "y": (y, g.output_block()),
    "dy": (dy, g.output_block()),
    **edge_rows({"y": y, "dy": dy}, g.output_shape, buffer.reach, g),
  }
  for j, row in enumerate(buffer.halo()):
    inputs[f"y_halo{j}"] = (y, g.output_row(row))
    inputs[f"dy_halo{j}"] = (dy, g.output_row(row))
  sums = pltpu.VMEM((g.groups, *TILE), jnp.float32)
  products = g.groups, g.rows.kernel_size, g.products
  results = tpu_call(
    partial(_kernel, given, wanted),
    name="depthwise_conv_bn_backward",
    grid=g.grid,
    inputs={**inputs, **given.operands(filters, vectors)},
    outputs={
      "dx": (x.shape, x.dtype, g.input_block()),
      **wanted.outputs(),
    },
    scratch={
      "effective": buffer.scratch(),
      "filter_sums": pltpu.VMEM((*products, *TILE), jnp.float32),
      "scale_sums": sums,
      "offset_sums": sums,
      **g.stage(x.dtype, g.blocks.columns * g.cols.stride),
    },
    vmem_limit_bytes=vmem_limit_bytes,
    cost=_cost(x, y, g),
  )
  arrays = wanted.arrays(results)
  return (
    results["dx"],
    arrays["dfilters"],
    arrays.get("dscale"),
    arrays.get("doffset"),
  )


def _cost(x, y, g) -> pl.CostEstimate:
  return pl.CostEstimate(
    flops=4 * g.rows.kernel_size**2 * y.size + 16 * x.size,
    transcendentals=x.size if g.activation == "silu" else 0,
    bytes_accessed=(2 * x.size + 2 * y.size) * x.dtype.itemsize,
  )


def vmem_bytes(g: Geometry, dtype: jnp.dtype) -> int:
  """What a grid step takes of VMEM."""
  buffer = backward_buffer(g)
  halo = 2 * buffer.other_rows * vmem_of((1, *g.output_shape[1:]), dtype)
  return (
    2 * vmem_of(g.input_shape, dtype)
    + 2 * vmem_of(g.output_shape, dtype)
    + halo
    + buffer.bytes
    + vector_bytes(g)
    + g.stage_bytes(dtype, g.blocks.columns * g.cols.stride)
  )


class _Sums(NamedTuple):
  """What is summed over a step's inputs, in registers."""

  scale: jax.Array
  offset: jax.Array


def _kernel(given: Given, wanted: Wanted, refs) -> None:
  g = given.g
  n, i = pl.program_id(1), pl.program_id(2)

  @pl.when((n == 0) & (i == 0))
  def _start():
    backward_buffer(g).clear_border(refs.effective)
    for ref in (refs.filter_sums, refs.scale_sums, refs.offset_sums):
      ref[...] = jnp.zeros_like(ref)

  def part(_, part: Part):
    _fill(given, refs, i, part)
    _gradients(given, refs, i, part)

  for_each_part(g, refs, part)

  @pl.when((n == g.grid[1] - 1) & (i == g.grid[2] - 1))
  def _finish():
    for_each_group(g, partial(_write_sums, g, wanted, refs))


def _fill(given: Given, refs, i, part: Part) -> None:
  """Writes dy and what comes through the moments to the buffer."""
  g = given.g
  groups = distinct(g, part.groups)
  affine = [_moments_affine(given, refs, group) for group in groups]
  masks: Masks = part.masks
  if stage_of(refs) is not None:
    masks = pair_masks(part.first, g.batch)

  def function(y, dy):
    q = [
      slope * a + (b + constant)
      for a, b, (slope, constant) in zip(
        y, dy, per_register(y, affine), strict=True
      )
    ]
    return masked(q, masks)

  buffer = backward_buffer(g)
  halos = [
    [getattr(refs, f"y_halo{j}"), getattr(refs, f"dy_halo{j}")]
    for j in range(len(buffer.halo()))
  ]
  buffer.fill(
    refs.effective,
    [refs.y, refs.dy],
    halos,
    edges_of(given, refs, ["y", "dy"], groups[0], function),
    function,
    i,
    part.sublanes,
    stage_of(refs),
  )


def _moments_affine(given: Given, refs, group):
  """Slope and constant of y in what comes back through the moments."""
  g = given.g
  mean, dmean, dm2 = (
    given.vector(refs, name, group) for name in ("mean", "dmean", "dm2")
  )
  slope = 2 * dm2
  count = g.rows.out * g.bands * g.cols.out * g.batch
  return slope, dmean / count - slope * mean


def _row_ranges(g: Geometry, i, phase: int) -> list[Range]:
  if g.trims_rows:
    return input_ranges(g.rows, phase)
  there: Any = g.rows.size
  if not g.whole:
    there = jnp.minimum(g.in_rows, g.rows.size - i * g.in_rows)
  # `//` would ask which chip this is.
  stop = lax.div(there - phase + g.rows.stride - 1, g.rows.stride)
  return [Range(0, stop, phase_taps(g.rows, phase))]


class _Of(NamedTuple):
  """What a part's gradients are made with.

  Attributes:
    g: The call.
    refs: The kernel's.
    prologues: Of each register.
    filters: Of each register.
    part: The part.
  """

  g: Geometry
  refs: Any
  prologues: list[Prologue]
  filters: list[Taps]
  part: Part


def _gradients(given: Given, refs, i, part: Part) -> None:
  g = given.g
  groups = distinct(g, part.groups)
  prologues = [given.prologue(refs, group) for group in groups]
  filters = [given.products(refs, group, reverse=True) for group in groups]
  of = _Of(
    g,
    refs,
    per_register(part.groups, prologues),
    per_register(part.groups, filters),
    part,
  )
  for phase in range(g.rows.stride):
    for start, stop, taps in _row_ranges(g, i, phase):
      sums = [_Sums(zeros(), zeros()) for _ in groups]
      body = partial(_row, of, phase, taps)
      sums = loop(start, stop, body, sums, g.blocks.turns)
      for group, (scale, offset) in zip(groups, sums, strict=True):
        refs.scale_sums[group] += scale
        refs.offset_sums[group] += offset


def _row(of: _Of, phase, taps, position, sums) -> list[_Sums]:
  """Gradients of the inputs of one row."""
  g, refs, part = of.g, of.refs, of.part
  stride = g.rows.stride
  row = position * stride + phase
  above, _ = reach(g.rows)
  rows = {
    a: position + (phase + g.rows.low - a) // stride + above for a in taps
  }
  compute = _direct if g.algorithm is None else _by_tiles

  def chunk(first, cells, sums, columns=None):
    columns = columns or cells * stride
    stage = stage_of(refs)
    sums = list(sums)
    x = load(refs.x, row, first * stride, columns, part.sublanes, stage)
    x = [masked(registers, part.masks) for registers in x]
    dx = []
    for p in range(len(x[0])):
      own = [registers[p] for registers in x]
      both = [of.prologues[p].with_slope(register) for register in own]
      dz = compute(of, rows, first, [z for z, _ in both], p)
      slopes = [slope for _, slope in both]
      values, sums[p % len(sums)] = _through_prologue(
        of.prologues[p], own, slopes, dz, sums[p % len(sums)]
      )
      dx.append(values)
    by_column = [list(registers) for registers in zip(*dx, strict=True)]
    store(refs.dx, row, first * stride, part.sublanes, by_column, stage)
    return sums

  cells, rest = divmod(g.cols.size, stride)
  sums = for_each_chunk(g, cells, chunk, sums)
  return chunk(cells, 1, sums, columns=rest) if rest else sums


def _direct(of: _Of, rows, first, z, p):
  """The gradients of some columns of z; adds to those of the filters."""
  g, refs, filters = of.g, of.refs, of.filters[p]
  left, _ = reach(g.cols)
  dz = [None] * len(z)
  for a, row in rows.items():
    filter_sums: dict[int, jax.Array] = {}
    for m, meets in _meetings(g, first, len(z)).items():
      q = refs.effective[row, first + m + left, p]
      for col, b in meets:
        dz[col] = plus(dz[col], q * filters[a][b])
        filter_sums[b] = plus(filter_sums.get(b), q * z[col])
    for b, part in filter_sums.items():
      refs.filter_sums[of.part.groups[p], a, b] += part
  return dz


def _by_tiles(of: _Of, rows, first, z, p):
  """As `_direct`, by minimal filtering."""
  g, refs, filters = of.g, of.refs, of.filters[p]
  assert g.algorithm
  tile, points = g.algorithm.outputs, g.algorithm.points
  tiles = range(pl.cdiv(len(z), tile))
  padded = [*z, *[None] * (len(tiles) * tile - len(z))]
  given = [
    g.algorithm.output_transposed(padded[t * tile : (t + 1) * tile])
    for t in tiles
  ]
  start = lax.div(first, tile) * points
  products = [[None] * points for _ in tiles]
  for j in range(points):
    for a, row in rows.items():
      part = None
      for t in tiles:
        q = refs.effective[row, start + t * points + j, p]
        products[t][j] = plus(products[t][j], q * filters[a][j])
        if given[t][j] is not None:
          part = plus(part, q * given[t][j])
      if part is not None:
        refs.filter_sums[of.part.groups[p], a, j] += part
  return [
    column
    for values in products
    for column in g.algorithm.output_transform(values)
  ][: len(z)]


def _through_prologue(prologue: Prologue, x, slopes, dz, sums: _Sums):
  """The gradients of some columns of x, and what they add to the sums."""
  scale_sum, offset_sum = sums
  dx = []
  for column, slope, du in zip(x, slopes, dz, strict=True):
    du = zeros() if du is None else du
    if slope is not None:
      du = du * slope
    offset_sum = offset_sum + du
    scale_sum = scale_sum + du * column
    # The scale of the prologue has silu's half, as the slope would need it.
    dx.append(du if prologue.scale is None else du * prologue.scale)
  return dx, _Sums(scale_sum, offset_sum)


def _meetings(g: Geometry, first, columns: int):
  """Output column, from `first`, to the (input column, tap) that meet it."""
  window = g.cols
  meetings: dict[int, list[tuple[int, int]]] = {}
  for col in range(columns):
    for b in range(window.kernel_size):
      m, rest = divmod(col + window.low - b, window.stride)
      known = isinstance(first, int)
      if rest or (known and not 0 <= first + m < window.out):
        continue
      meetings.setdefault(m, []).append((col, b))
  return dict(sorted(meetings.items()))


def _write_sums(g: Geometry, wanted: Wanted, refs, group) -> None:
  """Adds up what the registers of sums have of each channel."""
  taps = [
    [total(g, refs.filter_sums[group, a, j]) for j in range(g.products)]
    for a in range(g.rows.kernel_size)
  ]
  if g.algorithm is not None:
    taps = [g.algorithm.filter_transposed(row)[::-1] for row in taps]
  factor = Prologue(None, None, g.activation).slope_factor
  vectors = {
    "dscale": factor * total(g, refs.scale_sums[group]),
    "doffset": factor * total(g, refs.offset_sums[group]),
  }
  wanted.write(refs, group, vectors, taps)
