"""Packing by kernels that copy many leaves each.

XLA pads a leaf to whole registers, then copies it, and waits for memory at each
small leaf. These kernels start the copies of all their leaves at once, and read
and write each leaf once.
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
from ...tpu.loops import loop
from ...tpu.registers import TILE, zeros
from ..leaf_rows import LANES, SUBLANES, rows_of, to_matrix, to_rows
from . import xla

# Limits of one kernel. VMEM holds each leaf twice, and v3 has 15 MB of it.
_MOST_BYTES = 5 * 2**20
_MOST_LEAVES = 32  # v3 has too few semaphores for 48
_UNROLL = 8  # registers

_REGISTER = SUBLANES * LANES
_Batch = list[jax.Array]


def pack(leaves: Sequence[jax.Array], rows: int) -> jax.Array:
  """Compute `xla.pack` by kernels."""
  buffer, start = lax.empty((rows, LANES), jnp.float32), 0
  buffer, *leaves = match_varying(buffer, *leaves)
  for batch in _batches(leaves):
    batch_rows = sum(rows_of(leaf.shape) for leaf in batch)
    if 4 * LANES * batch_rows > _MOST_BYTES:
      buffer = xla.write(buffer, to_rows(batch[0]), start)
    else:
      buffer = _write(buffer, batch, start)
    start += batch_rows
  return xla.write(buffer, jnp.zeros((rows - start, LANES)), start)


def _batches(leaves: Sequence[jax.Array]) -> Iterator[_Batch]:
  """Group the leaves by kernel; a leaf above the limits is alone."""
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
  """Write leaves to the buffer by one kernel.

  The first kernel allocates the buffer. A buffer made before the kernel would
  take its memory from the start of the step, through all of the forward pass.
  """
  registers = buffer.reshape(-1, *TILE)
  written_before = [registers] if start else []
  readable = [_readable(leaf) for leaf in leaves]
  sizes = [rows_of(leaf.shape) // SUBLANES for leaf in leaves]
  in_hbm = pl.BlockSpec(memory_space=pl.ANY)
  written = pl.pallas_call(
    partial(_kernel, sizes=sizes, start=start // SUBLANES),
    in_specs=[[in_hbm] * len(written_before), [in_hbm] * len(readable)],
    out_specs=in_hbm,
    out_shape=jax.ShapeDtypeStruct(
      registers.shape,
      jnp.float32,
      manual_axis_type=jax.typeof(buffer).manual_axis_type,
    ),
    input_output_aliases={0: 0} if written_before else {},
    scratch_shapes={
      "loaded_refs": [pltpu.VMEM(x.shape, jnp.float32) for x in readable],
      "registers_ref": pltpu.VMEM((sum(sizes), *TILE), jnp.float32),
      "load_semaphores": pltpu.SemaphoreType.DMA((len(readable),)),
      "store_semaphore": pltpu.SemaphoreType.DMA,
    },
    compiler_params=pltpu.CompilerParams(
      vmem_limit_bytes=target_chip().vmem_bytes
    ),
    cost_estimate=pl.CostEstimate(
      flops=0,
      transcendentals=0,
      bytes_accessed=8 * _REGISTER * sum(sizes),
    ),
    name="pack",
  )(written_before, readable)
  return written.reshape(buffer.shape)


def _readable(leaf: jax.Array) -> jax.Array:
  """Reshape a leaf for the kernel: to `[n]`, to a matrix or to its rows."""
  if leaf.ndim < 2:
    return leaf.reshape(-1)
  *outer, height, _ = leaf.shape
  if height % SUBLANES and math.prod(outer) > 1:
    # XLA would copy it to make a matrix, because each of its outer slices ends
    # in a padded tile.
    return to_rows(leaf)
  return to_matrix(leaf)


def _kernel(
  written_before_refs,
  leaf_refs,  # [n] or [height, width], in HBM
  out_ref,  # [registers, 8, 128], in HBM
  *,
  loaded_refs,  # as leaf_refs, in VMEM
  registers_ref,  # [sum(sizes), 8, 128]
  load_semaphores,
  store_semaphore,
  sizes: list[int],
  start: int,
) -> None:
  """Load all leaves at once; lay each out as registers, and store it."""
  del written_before_refs  # aliased with out_ref
  loads = [
    pltpu.make_async_copy(leaf_ref, loaded_ref, load_semaphores.at[i])
    for i, (leaf_ref, loaded_ref) in enumerate(
      zip(leaf_refs, loaded_refs, strict=True)
    )
  ]
  for load in loads:
    load.start()
  stores, first_register = [], 0
  for load, loaded_ref, size in zip(loads, loaded_refs, sizes, strict=True):
    load.wait()
    if len(loaded_ref.shape) == 1:
      _copy_vector(loaded_ref, registers_ref, first_register)
    else:
      _copy_matrix(loaded_ref, registers_ref, first_register)
    stores.append(
      pltpu.make_async_copy(
        registers_ref.at[pl.ds(first_register, size)],
        out_ref.at[pl.ds(start + first_register, size)],
        store_semaphore,
      )
    )
    stores[-1].start()
    first_register += size
  for store in stores:
    store.wait()


def _copy_vector(vector_ref, registers_ref, first_register: int) -> None:
  """Copy `[n]` to registers, row by row."""
  size = vector_ref.shape[0]
  if size % _REGISTER:
    registers_ref[first_register + size // _REGISTER] = zeros()
  for row, begin in enumerate(range(0, size, LANES)):
    register, sublane = divmod(row, SUBLANES)
    values = vector_ref[begin : min(begin + LANES, size)]
    registers_ref[first_register + register, sublane, : values.size] = values


def _copy_matrix(matrix_ref, registers_ref, first_register: int) -> None:
  """Copy `[height, width]` to registers, tile by tile."""
  height, width = matrix_ref.shape
  tile_rows, rest = divmod(height, SUBLANES)
  tile_columns = pl.cdiv(width, LANES)

  def copy_tiles(tile_row, rows):
    for tile_column in range(tile_columns):
      begin = tile_column * LANES
      values = matrix_ref[
        pl.ds(tile_row * SUBLANES, rows), begin : min(begin + LANES, width)
      ]
      register = first_register + tile_row * tile_columns + tile_column
      if values.shape != TILE:
        registers_ref[register] = zeros()
      registers_ref[register, : values.shape[0], : values.shape[1]] = values

  def copy_whole_tiles(tile_row, carry):
    del carry
    copy_tiles(tile_row, SUBLANES)

  unroll = max(1, _UNROLL // tile_columns)
  loop(0, tile_rows, copy_whole_tiles, None, unroll)
  if rest:
    copy_tiles(tile_rows, rest)
