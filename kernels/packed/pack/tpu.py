"""Leaves written into a buffer by kernels of many leaves each.

XLA pads a leaf that fills no whole registers, and then copies it, and waits for
memory with each small one. Here the leaves of a kernel are all on their way at
once, and each is read and written once.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ...common.manual_axes import match_varying
from ...tpu.chip import target_chip
from ...tpu.registers import TILE, zeros
from ..leaf_rows import LANES, SUBLANES, rows_of, to_matrix, to_rows
from . import xla

# Of a kernel. VMEM holds each leaf twice: v3 has 15 MB.
_MOST_BYTES = 5 * 2**20
_MOST_LEAVES = 32  # with 48 v3 has too few semaphores
_UNROLLED = 8  # registers of a turn of the loop

_REGISTER = SUBLANES * LANES
_Batch = list[jax.Array]


def pack(leaves: Sequence[jax.Array], rows: int) -> jax.Array:
  """As `xla.pack`."""
  buffer, start = lax.empty((rows, LANES), jnp.float32), 0
  (buffer, *leaves) = match_varying(buffer, *leaves)
  for batch in _batches(leaves):
    whole = sum(rows_of(leaf.shape) for leaf in batch)
    if 4 * LANES * whole > _MOST_BYTES:
      buffer = xla.write(buffer, to_rows(batch[0]), start)
    else:
      buffer = _write(buffer, batch, start)
    start += whole
  return xla.write(buffer, jnp.zeros((rows - start, LANES)), start)


def _batches(leaves: Sequence[jax.Array]) -> Iterator[_Batch]:
  """The leaves in groups for a kernel each, and large ones alone."""
  batch: _Batch = []
  for leaf in leaves:
    if leaf.size == 0:
      continue
    rows = sum(rows_of(x.shape) for x in [*batch, leaf])
    too_large = 4 * LANES * rows > _MOST_BYTES
    if batch and (too_large or len(batch) == _MOST_LEAVES):
      yield batch
      batch = []
    batch = [*batch, leaf]
  if batch:
    yield batch


def _write(buffer: jax.Array, leaves: _Batch, start: int) -> jax.Array:
  """The buffer with these leaves; the first kernel makes it.

  A buffer made beforehand would take its memory from the start of the step on,
  through all of the forward pass.
  """
  registers = buffer.reshape(-1, *TILE)
  written_to = [registers] if start else []
  blocks = list(map(_readable, leaves))
  sizes = [rows_of(leaf.shape) // SUBLANES for leaf in leaves]
  in_hbm = pl.BlockSpec(memory_space=pl.ANY)
  written = pl.pallas_call(
    partial(_kernel, sizes=sizes, start=start // SUBLANES),
    in_specs=[in_hbm] * (len(written_to) + len(blocks)),
    out_specs=in_hbm,
    out_shape=jax.ShapeDtypeStruct(
      registers.shape,
      jnp.float32,
      manual_axis_type=jax.typeof(buffer).manual_axis_type,
    ),
    input_output_aliases={0: 0} if written_to else {},
    scratch_shapes=[
      *[pltpu.VMEM(block.shape, jnp.float32) for block in blocks],
      pltpu.VMEM((sum(sizes), *TILE), jnp.float32),
      pltpu.SemaphoreType.DMA((len(blocks),)),
      pltpu.SemaphoreType.DMA,
    ],
    compiler_params=pltpu.CompilerParams(
      vmem_limit_bytes=target_chip().vmem_bytes
    ),
    cost_estimate=pl.CostEstimate(
      flops=0,
      transcendentals=0,
      bytes_accessed=8 * _REGISTER * sum(sizes),
    ),
    name="pack",
  )(*written_to, *blocks)
  return written.reshape(buffer.shape)


def _readable(leaf: jax.Array) -> jax.Array:
  """A leaf as the kernel reads it: `[n]`, a matrix, or its rows."""
  if leaf.ndim < 2:
    return leaf.reshape(-1)
  *outer, height, _ = leaf.shape
  if height % SUBLANES and math.prod(outer) > 1:
    # As a matrix it is copied all the same: tiles are padded in each of these.
    return to_rows(leaf)
  return to_matrix(leaf)


def _kernel(*refs, sizes: list[int], start: int):
  count = len(sizes)
  *_, registers_ref, loaded, stored = refs
  *leaf_refs, out_ref = refs[-4 - 2 * count : -3 - count]
  block_refs = refs[-3 - count : -3]
  loads = [
    pltpu.make_async_copy(leaf, block, loaded.at[i])
    for i, (leaf, block) in enumerate(zip(leaf_refs, block_refs, strict=True))
  ]
  for load in loads:
    load.start()
  stores, first = [], 0
  for load, block_ref, size in zip(loads, block_refs, sizes, strict=True):
    load.wait()
    if len(block_ref.shape) == 1:
      _copy_vector(block_ref, registers_ref, first)
    else:
      _copy_matrix(block_ref, registers_ref, first)
    stores.append(
      pltpu.make_async_copy(
        registers_ref.at[pl.ds(first, size)],
        out_ref.at[pl.ds(start + first, size)],
        stored,
      )
    )
    stores[-1].start()
    first += size
  for store in stores:
    store.wait()


def _copy_vector(vector_ref, registers_ref, first: int) -> None:
  """`[n]`, a row of a register after the other."""
  size = vector_ref.shape[0]
  if size % _REGISTER:
    registers_ref[first + size // _REGISTER] = zeros()
  for row, begin in enumerate(range(0, size, LANES)):
    register, sublane = divmod(row, SUBLANES)
    values = vector_ref[begin : min(begin + LANES, size)]
    registers_ref[first + register, sublane, : values.size] = values


def _copy_matrix(matrix_ref, registers_ref, first: int) -> None:
  """`[height, width]`, tile by tile."""
  height, width = matrix_ref.shape
  across = pl.cdiv(width, LANES)
  unrolled = max(1, _UNROLLED // across)
  turns = height // SUBLANES // unrolled

  def copy(down, rows):
    for column in range(across):
      begin = column * LANES
      values = matrix_ref[
        pl.ds(down * SUBLANES, rows), begin : min(begin + LANES, width)
      ]
      register = first + down * across + column
      if values.shape != TILE:
        registers_ref[register] = zeros()
      registers_ref[register, : values.shape[0], : values.shape[1]] = values

  def turn(i, _):
    for down in range(unrolled):
      copy(i * unrolled + down, SUBLANES)

  if turns:
    lax.fori_loop(0, turns, turn, None)
  for down in range(turns * unrolled, pl.cdiv(height, SUBLANES)):
    copy(down, min(SUBLANES, height - down * SUBLANES))
