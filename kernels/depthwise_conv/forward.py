"""The forward kernel: prologue, convolution and moments in one pass.

A grid step has some rows of some images and 128 channels in VMEM. It writes
the activated rows to a float32 buffer with a border of zeros, then convolves
row by row, some columns at a time.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..moments import Moments
from ..tpu.call import tpu_call
from ..tpu.columns import column_chunks
from ..tpu.prologue import load_prologue
from ..tpu.registers import (
  SUBLANES,
  TILE,
  batch_masks,
  convert,
  load_filters,
  loop,
  store,
  sublane_images,
  zeros,
)
from .geometry import Geometry, stage_of, vmem_of
from .taps import Range, output_ranges


def forward(
  x: jax.Array,  # [h, w, n, c]
  filters: jax.Array,  # [k, k, c]
  scale: jax.Array | None,  # [c]
  offset: jax.Array | None,  # [c]
  g: Geometry,
  vmem_limit_bytes: int,
) -> tuple[jax.Array, Moments]:
  """See `podscale.kernels.depthwise_conv_bn`."""
  inputs = {"x": (x, g.input_block())}
  for j, row in enumerate(_halo(g)):
    inputs[f"halo{j}"] = (x, g.input_row(row))
  inputs["filters"] = g.filters_input(filters)
  for name, given in (("scale", scale), ("offset", offset)):
    if given is not None:
      inputs[name] = (given[None], g.vector_block())
  y_shape = (g.rows.out, g.cols.out, g.batch, g.channels)
  vector = ((1, g.channels), jnp.float32, g.vector_block())
  results = tpu_call(
    partial(_kernel, g),
    name="depthwise_conv_bn_forward",
    grid=g.grid,
    inputs=inputs,
    outputs={
      "y": (y_shape, x.dtype, g.output_block()),
      "mean": vector,
      "m2": vector,
    },
    scratch={
      "activated": pltpu.VMEM(g.buffer_shape(*_buffer_size(g)), jnp.float32),
      "sums": pltpu.VMEM(TILE, jnp.float32),
      "squares": pltpu.VMEM(TILE, jnp.float32),
      "pivot": pltpu.VMEM(TILE, jnp.float32),
      **g.stage(x.dtype, g.blocks.columns),
    },
    vmem_limit_bytes=vmem_limit_bytes,
    cost=_cost(x, y_shape, g),
  )
  count = jnp.float32(g.rows.out * g.cols.out * g.batch)
  return results["y"], Moments(count, results["mean"][0], results["m2"][0])


def vmem_bytes(g: Geometry, dtype: jnp.dtype) -> int:
  """What a grid step takes of VMEM, but for the per-channel vectors."""
  halo = len(_halo(g)) * vmem_of((1, *g.input_shape[1:]), dtype)
  buffer = 4 * math.prod(g.buffer_shape(*_buffer_size(g)))
  return (
    vmem_of(g.input_shape, dtype)
    + vmem_of(g.output_shape, dtype)
    + halo
    + buffer
    + g.stage_bytes(dtype, g.blocks.columns)
  )


def _halo(g: Geometry) -> list[int]:
  """Rows of other steps' blocks that a step reads, from its block's start."""
  if g.whole:
    return []
  below = max(g.rows.kernel - g.rows.stride - g.rows.low, 0)
  return [
    *range(-g.rows.low, 0),
    *range(g.in_rows, g.in_rows + below),
  ]


def _buffer_size(g: Geometry) -> tuple[int, int]:
  """Rows and columns of the activated input with its border."""
  rows = (g.out_rows - 1) * g.rows.stride + g.rows.kernel
  cols = (g.cols.out - 1) * g.cols.stride + g.cols.kernel
  return max(rows, g.rows.low + g.in_rows), max(cols, g.cols.low + g.cols.size)


def _cost(x, y_shape, g) -> pl.CostEstimate:
  outputs = y_shape[0] * y_shape[1] * y_shape[2] * y_shape[3]
  return pl.CostEstimate(
    flops=outputs * (2 * g.rows.kernel**2 + 4) + 4 * x.size,
    transcendentals=x.size if g.activation == "silu" else 0,
    bytes_accessed=(x.size + outputs) * x.dtype.itemsize,
  )


def _kernel(g: Geometry, refs) -> None:
  n, i = pl.program_id(1), pl.program_id(2)

  @pl.when((n == 0) & (i == 0))
  def _start():
    _clear_border(g, refs.activated)
    for ref in (refs.sums, refs.squares, refs.pivot):
      ref[...] = zeros()

  packed = g.blocks.packed
  images = jnp.minimum(g.blocks.images, g.batch - n * g.blocks.images)

  @pl.loop(0, pl.cdiv(images, packed))
  def _images(q):
    rows = pl.ds(pl.multiple_of(q * packed, packed), packed)
    masks = batch_masks(
      n * g.blocks.images + q * packed, g.batch, packed, stage_of(refs)
    )
    _activate(g, refs, i, rows)

    @pl.when((n == 0) & (i == 0) & (q == 0))
    def _pivot():
      _take_pivot(g, refs, masks)

    _convolve(g, refs, i, rows, masks)

  @pl.when((n == g.grid[1] - 1) & (i == g.grid[2] - 1))
  def _finish():
    _write_moments(g, refs)


def _clear_border(g: Geometry, activated) -> None:
  """Zeros around the image; nothing else is ever written there.

  The rows of the border are those of other blocks where a step has not all of
  them, and are written each time.
  """
  height, width, registers = activated.shape[:3]
  inside = range(g.cols.low, g.cols.low + g.cols.size)
  border = [col for col in range(width) if col not in inside]

  @pl.loop(0, height)
  def _(row):
    for col in border:
      for p in range(registers):
        activated[row, col, p] = zeros()

  if g.whole:
    for row in range(height):
      if not 0 <= row - g.rows.low < g.rows.size:
        _clear_row(g, activated, row)


def _clear_row(g: Geometry, activated, row) -> None:
  registers = activated.shape[2]

  def chunk(first, size, _):
    for col in range(size):
      for p in range(registers):
        activated[row, g.cols.low + first + col, p] = zeros()

  column_chunks(g.cols.size, g.blocks.activated, chunk)


def _activate(g: Geometry, refs, i, images) -> None:
  """Fills the buffer with what the taps of this step read."""
  prologue = load_prologue(
    getattr(refs, "scale", None), getattr(refs, "offset", None), g.activation
  )

  def function(registers):
    return [prologue(register) for register in registers]

  def activate(to_row, ref, row):
    def chunk(first, size, _):
      to = (refs.activated, to_row, g.cols.low + first)
      convert(function, [ref], row, first, size, images, to, stage_of(refs))

    column_chunks(g.cols.size, g.blocks.activated, chunk)

  low = g.rows.low
  if g.whole:
    loop(0, g.in_rows, lambda row: activate(low + row, refs.x, row))
    return
  there = jnp.minimum(g.in_rows, g.rows.size - i * g.in_rows)
  loop(0, there, lambda row: activate(low + row, refs.x, row))
  if g.rows.size % g.in_rows:
    loop(there, g.in_rows, lambda row: _clear_row(g, refs.activated, low + row))
  for j, row in enumerate(_halo(g)):
    inside = (i * g.in_rows + row >= 0) & (i * g.in_rows + row < g.rows.size)
    halo = getattr(refs, f"halo{j}")
    pl.when(inside)(partial(activate, low + row, halo, 0))
    pl.when(~inside)(partial(_clear_row, g, refs.activated, low + row))


def _row_ranges(g: Geometry, i) -> list[Range]:
  if g.trims_rows:
    return output_ranges(g.rows)
  every = tuple(range(g.rows.kernel))
  there = jnp.minimum(g.out_rows, g.rows.out - i * g.out_rows)
  return [Range(0, g.out_rows if g.whole else there, every)]


def _convolve(g: Geometry, refs, i, images, masks) -> None:
  """Outputs of this step, and what they add to the moments."""
  filters = load_filters(refs.filters)
  pivot = refs.pivot[...]

  def row(taps, row, sums):
    def chunk(first, size, sums):
      columns = _outputs(g, refs.activated, filters, taps, row, first, size)
      store(refs.y, row, first, images, columns, stage_of(refs))
      return _add_moments(columns, pivot, masks, sums)

    return column_chunks(g.cols.out, g.blocks.columns, chunk, sums)

  sums = (zeros(), zeros())
  for start, stop, taps in _row_ranges(g, i):
    sums = lax.fori_loop(start, stop, partial(row, taps), sums)
  refs.sums[...] += sums[0]
  refs.squares[...] += sums[1]


def _outputs(g, activated, filters, taps, row, first, size):
  """Registers of `size` columns of an output row, from column `first`."""
  stride, kernel = g.cols.stride, g.cols.kernel
  columns = []
  for p in range(activated.shape[2]):
    sums = [None] * size
    for a in taps:
      for j in range((size - 1) * stride + kernel):
        if _in_padding(g, first, j):
          continue
        z = activated[row * g.rows.stride + a, first * stride + j, p]
        for col in range(size):
          b = j - col * stride
          if 0 <= b < kernel:
            term = z * filters[a][b]
            sums[col] = term if sums[col] is None else sums[col] + term
    columns.append(sums)
  return [list(registers) for registers in zip(*columns, strict=True)]


def _in_padding(g, first, j) -> bool:
  """Whether buffer column j of a chunk is known to be one of zeros."""
  if not isinstance(first, int):
    return False
  return not 0 <= first * g.cols.stride + j - g.cols.low < g.cols.size


def _add_moments(columns, pivot, masks, sums):
  first, second = sums
  for registers in columns:
    for p, register in enumerate(registers):
      deviation = register - pivot
      if masks is not None:
        deviation = jnp.where(masks[p], deviation, 0.0)
      first = first + deviation
      second = second + deviation * deviation
  return first, second


def _take_pivot(g: Geometry, refs, masks) -> None:
  """A value near the mean of each sublane's outputs: one of them.

  Sums of deviations from it do not cancel, however far the mean is from zero
  in standard deviations.
  """
  middle = (g.out_rows // 2, g.cols.out // 2)
  every = tuple(range(g.rows.kernel))
  filters = load_filters(refs.filters)
  ((register, *_),) = _outputs(
    g, refs.activated, filters, every, middle[0], middle[1], 1
  )
  if masks is not None:
    register = jnp.where(masks[0], register, 0.0)
  refs.pivot[...] = register


def _write_moments(g: Geometry, refs) -> None:
  """Merges the sublanes' moments (Chan, Golub and LeVeque 1979)."""
  image = sublane_images(stage_of(refs))
  # Those n with n % 8 == image; `//` would ask which chip this is.
  images = lax.div(g.batch - image + SUBLANES - 1, SUBLANES)
  count = (images * (g.rows.out * g.cols.out)).astype(jnp.float32)
  shift = refs.sums[...] / jnp.maximum(count, 1)
  means = refs.pivot[...] + shift
  squares = refs.squares[...] - refs.sums[...] * shift
  total = g.batch * g.rows.out * g.cols.out
  mean = jnp.sum(count * means, 0, keepdims=True) / total
  between = count * jnp.square(means - mean)
  refs.mean[...] = mean
  refs.m2[...] = jnp.sum(squares + between, 0, keepdims=True)
