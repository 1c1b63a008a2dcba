"""The backward kernel: all gradients in one pass over x, y and dy.

What comes back to the convolution is `dy`, and through the moments an affine
of y per channel. A grid step writes their sum, for its own outputs and those
around them, to a float32 buffer with a border of zeros. Then it goes over its
inputs: each meets the outputs that it had a part in, which gives its own
gradient and its part of the filters'.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..moments import Moments
from ..tpu.call import Result, tpu_call
from ..tpu.columns import column_chunks
from ..tpu.prologue import Prologue, load_prologue
from ..tpu.registers import (
  TILE,
  batch_masks,
  broadcast,
  convert,
  load,
  load_filters,
  loop,
  masked,
  pair_masks,
  store,
  zeros,
)
from .call import Gradients
from .geometry import Geometry, stage_of, vmem_of
from .taps import Range, input_ranges, phase_taps


def backward(
  x: jax.Array,  # [h, w, n, c]
  filters: jax.Array,  # [k, k, c]
  scale: jax.Array | None,  # [c]
  offset: jax.Array | None,  # [c]
  y: jax.Array,  # [ho, wo, n, c]
  moments: Moments,
  dy: jax.Array,  # [ho, wo, n, c]
  dmoments: Moments,
  g: Geometry,
  vmem_limit_bytes: int,
) -> Gradients:
  """The gradients of x, filters, scale and offset, in their dtypes."""
  inputs = {
    "x": (x, g.input_block()),
    "y": (y, g.output_block()),
    "dy": (dy, g.output_block()),
  }
  for j, row in enumerate(_halo(g)):
    inputs[f"y_halo{j}"] = (y, g.output_row(row))
    inputs[f"dy_halo{j}"] = (dy, g.output_row(row))
  inputs["filters"] = g.filters_input(filters)
  vectors = {
    "scale": scale,
    "offset": offset,
    "mean": moments.mean,
    "dmean": dmoments.mean,
    "dm2": dmoments.m2,
  }
  for name, given in vectors.items():
    if given is not None:
      inputs[name] = (given[None], g.vector_block())
  outputs: dict[str, Result] = {
    "dx": (x.shape, x.dtype, g.input_block()),
    "dfilters": (filters.shape, filters.dtype, g.filters_block()),
  }
  vector = ((1, g.channels), jnp.float32, g.vector_block())
  for name, given in (("dscale", scale), ("doffset", offset)):
    if given is not None:
      outputs[name] = vector
  k = g.rows.kernel
  results = tpu_call(
    partial(_kernel, g),
    name="depthwise_conv_bn_backward",
    grid=g.grid,
    inputs=inputs,
    outputs=outputs,
    scratch={
      "effective": pltpu.VMEM(g.buffer_shape(*_buffer_size(g)), jnp.float32),
      "filter_sums": pltpu.VMEM((k, k, *TILE), jnp.float32),
      "scale_sums": pltpu.VMEM(TILE, jnp.float32),
      "offset_sums": pltpu.VMEM(TILE, jnp.float32),
      **g.stage(x.dtype, g.blocks.columns * g.cols.stride),
    },
    vmem_limit_bytes=vmem_limit_bytes,
    cost=_cost(x, y, g),
  )
  dscale, doffset = (
    results[name][0] if name in results else None
    for name in ("dscale", "doffset")
  )
  return results["dx"], results["dfilters"], dscale, doffset


def _cost(x, y, g) -> pl.CostEstimate:
  return pl.CostEstimate(
    flops=4 * g.rows.kernel**2 * y.size + 16 * x.size,
    transcendentals=x.size if g.activation == "silu" else 0,
    bytes_accessed=(2 * x.size + 2 * y.size) * x.dtype.itemsize,
  )


def vmem_bytes(g: Geometry, dtype: jnp.dtype) -> int:
  """What a grid step takes of VMEM, but for the per-channel vectors."""
  halo = 2 * len(_halo(g)) * vmem_of((1, *g.output_shape[1:]), dtype)
  buffer = 4 * math.prod(g.buffer_shape(*_buffer_size(g)))
  return (
    2 * vmem_of(g.input_shape, dtype)
    + 2 * vmem_of(g.output_shape, dtype)
    + halo
    + buffer
    + g.stage_bytes(dtype, g.blocks.columns * g.cols.stride)
  )


class _Reach(NamedTuple):
  """How many outputs before and after its own an input's step reads."""

  before: int
  after: int


def _reach(window) -> _Reach:
  return _Reach(
    (window.kernel - 1 - window.low) // window.stride,
    (window.low + window.stride - 1) // window.stride,
  )


def _halo(g: Geometry) -> list[int]:
  """Output rows of other blocks that a step reads, from its block's start."""
  if g.whole:
    return []
  reach = _reach(g.rows)
  return [
    *range(-reach.before, 0),
    *range(g.out_rows, g.out_rows + reach.after),
  ]


def _buffer_size(g: Geometry) -> tuple[int, int]:
  """Rows and columns of the effective dy with its border."""
  rows, cols = _reach(g.rows), _reach(g.cols)
  return (
    rows.before + g.out_rows + rows.after,
    cols.before + g.cols.out + cols.after,
  )


def _kernel(g: Geometry, refs) -> None:
  n, i = pl.program_id(1), pl.program_id(2)
  sums = (refs.filter_sums, refs.scale_sums, refs.offset_sums)

  @pl.when((n == 0) & (i == 0))
  def _start():
    _clear_border(g, refs.effective)
    for ref in sums:
      ref[...] = jnp.zeros_like(ref)

  packed = g.blocks.packed
  images = jnp.minimum(g.blocks.images, g.batch - n * g.blocks.images)

  @pl.loop(0, pl.cdiv(images, packed))
  def _images(q):
    rows = pl.ds(pl.multiple_of(q * packed, packed), packed)
    first, stage = n * g.blocks.images + q * packed, stage_of(refs)
    masks = batch_masks(first, g.batch, packed, stage)
    loaded = masks if stage is None else pair_masks(first, g.batch)
    _fill(g, refs, i, rows, loaded)
    _gradients(g, refs, i, rows, masks)

  @pl.when((n == g.grid[1] - 1) & (i == g.grid[2] - 1))
  def _finish():
    _write_sums(g, refs)


def _clear_border(g: Geometry, effective) -> None:
  """Zeros around the outputs; nothing else is ever written there."""
  height, width, registers = effective.shape[:3]
  before = _reach(g.cols).before
  inside = range(before, before + g.cols.out)
  border = [col for col in range(width) if col not in inside]

  @pl.loop(0, height)
  def _(row):
    for col in border:
      for p in range(registers):
        effective[row, col, p] = zeros()

  if g.whole:
    before = _reach(g.rows).before
    for row in range(height):
      if not 0 <= row - before < g.rows.out:
        _clear_row(g, effective, row)


def _clear_row(g: Geometry, effective, row) -> None:
  before = _reach(g.cols).before

  def chunk(first, size, _):
    for col in range(size):
      for p in range(effective.shape[2]):
        effective[row, before + first + col, p] = zeros()

  column_chunks(g.cols.out, g.blocks.activated, chunk)


def _fill(g: Geometry, refs, i, images, masks) -> None:
  """Writes dy and what comes through the moments to the buffer."""
  count = g.rows.out * g.cols.out * g.batch
  slope = 2 * refs.dm2[...]
  constant = broadcast(refs.dmean[...] / count - slope * refs.mean[...])
  slope = broadcast(slope)
  before = _reach(g.rows).before, _reach(g.cols).before

  def function(y, dy):
    q = [slope * a + (b + constant) for a, b in zip(y, dy, strict=True)]
    return masked(q, masks)

  def fill(to_row, y_ref, dy_ref, row):
    def chunk(first, size, _):
      to = (refs.effective, to_row, before[1] + first)
      sources = (y_ref, dy_ref)
      convert(function, sources, row, first, size, images, to, stage_of(refs))

    column_chunks(g.cols.out, g.blocks.activated, chunk)

  if g.whole:
    loop(0, g.out_rows, lambda row: fill(before[0] + row, refs.y, refs.dy, row))
    return
  there = jnp.minimum(g.out_rows, g.rows.out - i * g.out_rows)
  loop(0, there, lambda row: fill(before[0] + row, refs.y, refs.dy, row))
  if g.rows.out % g.out_rows:
    loop(
      there,
      g.out_rows,
      lambda row: _clear_row(g, refs.effective, before[0] + row),
    )
  for j, row in enumerate(_halo(g)):
    inside = (i * g.out_rows + row >= 0) & (i * g.out_rows + row < g.rows.out)
    halo = getattr(refs, f"y_halo{j}"), getattr(refs, f"dy_halo{j}")
    pl.when(inside)(partial(fill, before[0] + row, *halo, 0))
    pl.when(~inside)(partial(_clear_row, g, refs.effective, before[0] + row))


def _row_ranges(g: Geometry, i, phase: int) -> list[Range]:
  if g.trims_rows:
    return input_ranges(g.rows, phase)
  there: Any = g.rows.size
  if not g.whole:
    there = jnp.minimum(g.in_rows, g.rows.size - i * g.in_rows)
  # `//` would ask which chip this is.
  stop = lax.div(there - phase + g.rows.stride - 1, g.rows.stride)
  return [Range(0, stop, phase_taps(g.rows, phase))]


class _Sums(NamedTuple):
  """What is summed over a step's inputs, in registers."""

  scale: jax.Array
  offset: jax.Array


def _gradients(g: Geometry, refs, i, images, masks) -> None:
  prologue = load_prologue(
    getattr(refs, "scale", None), getattr(refs, "offset", None), g.activation
  )
  filters = load_filters(refs.filters)
  for phase in range(g.rows.stride):
    for start, stop, taps in _row_ranges(g, i, phase):
      body = partial(
        _row, g, refs, prologue, filters, images, masks, phase, taps
      )
      sums = _Sums(zeros(), zeros())
      sums = lax.fori_loop(start, stop, body, sums)
      refs.scale_sums[...] += sums.scale
      refs.offset_sums[...] += sums.offset


def _row(
  g, refs, prologue, filters, images, masks, phase, taps, position, sums
) -> _Sums:
  """Gradients of the inputs of one row."""
  stride = g.rows.stride
  row = position * stride + phase
  before = _reach(g.rows).before
  rows = {
    a: position + (phase + g.rows.low - a) // stride + before for a in taps
  }

  def chunk(first, cells, sums, columns=None):
    columns = columns or cells * stride
    stage = stage_of(refs)
    x = load(refs.x, row, first * stride, columns, images, stage)
    x = [masked(registers, masks) for registers in x]
    dx = []
    for p in range(len(x[0])):
      values, sums = _registers(
        g,
        refs,
        prologue,
        filters,
        rows,
        first,
        [registers[p] for registers in x],
        p,
        sums,
      )
      dx.append(values)
    by_column = [list(registers) for registers in zip(*dx, strict=True)]
    store(refs.dx, row, first * stride, images, by_column, stage)
    return sums

  cells, rest = divmod(g.cols.size, stride)
  sums = column_chunks(cells, g.blocks.columns, chunk, sums)
  return chunk(cells, 1, sums, columns=rest) if rest else sums


def _registers(g, refs, prologue, filters, rows, first, x, p, sums):
  """The gradients of some columns' inputs, and what they add to the sums."""
  both = [prologue.with_slope(register) for register in x]
  z = [activation for activation, _ in both]
  dz = [None] * len(x)
  for a, row in rows.items():
    filter_sums: dict[int, jax.Array] = {}
    for m, meets in _meetings(g, first, len(x)).items():
      q = refs.effective[row, first + m + _reach(g.cols).before, p]
      for col, b in meets:
        term = q * filters[a][b]
        dz[col] = term if dz[col] is None else dz[col] + term
        part = q * z[col]
        filter_sums[b] = filter_sums[b] + part if b in filter_sums else part
    for b, part in filter_sums.items():
      refs.filter_sums[a, b] += part
  scale_sum, offset_sum = sums.scale, sums.offset
  dx = []
  for col, (_, slope) in enumerate(both):
    du = dz[col] if dz[col] is not None else zeros()
    if slope is not None:
      du = du * slope
    offset_sum = offset_sum + du
    scale_sum = scale_sum + du * x[col]
    # The scale of the prologue has silu's half, as the slope would need it.
    dx.append(du if prologue.scale is None else du * prologue.scale)
  return dx, _Sums(scale_sum, offset_sum)


def _meetings(g: Geometry, first, columns: int):
  """Output column, from `first`, to the (input column, tap) that meet it."""
  window = g.cols
  meetings: dict[int, list[tuple[int, int]]] = {}
  for col in range(columns):
    for b in range(window.kernel):
      m, rest = divmod(col + window.low - b, window.stride)
      known = isinstance(first, int)
      if rest or (known and not 0 <= first + m < window.out):
        continue
      meetings.setdefault(m, []).append((col, b))
  return dict(sorted(meetings.items()))


def _write_sums(g: Geometry, refs) -> None:
  """Adds up the sublanes."""
  for a in range(g.rows.kernel):
    for b in range(g.rows.kernel):
      total = jnp.sum(refs.filter_sums[a, b], 0, keepdims=True)
      refs.dfilters[a, b : b + 1] = total.astype(refs.dfilters.dtype)
  factor = Prologue(None, None, g.activation).slope_factor
  for name, sums in (
    ("dscale", refs.scale_sums),
    ("doffset", refs.offset_sums),
  ):
    if hasattr(refs, name):
      total = jnp.sum(sums[...], 0, keepdims=True)
      getattr(refs, name)[...] = factor * total
