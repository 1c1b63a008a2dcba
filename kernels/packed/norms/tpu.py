"""Norms of leaves by one kernel that reads the buffers once.

The kernel goes over the registers in order. It adds the squares of a leaf's
registers one after the other and leaves the sums in the leaf's slot. In the
last step it sums each slot over sublanes and lanes and writes the result to the
leaf's lane.
"""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ...tpu.chip import target_chip
from ...tpu.loops import loop
from ...tpu.pallas_call import Operand, tpu_call
from ...tpu.registers import LANES, SUBLANES, TILE, zeros
from ..leaf_map import LeafMap
from ..packing import Shard
from ..register_blocks import RegisterBlocks, as_registers, register_blocks
from . import xla
from .scaled_norm import SCALES, norm_of_sums, scaled_squares

_UNROLL = 8  # slots


def norms(
  buffers: Sequence[jax.Array], leaf_map: LeafMap, shard: Shard | None
) -> jax.Array:
  """Compute `xla.norms` by the kernel.

  Raises:
    NotImplementedError: VMEM does not hold the sums of all leaves.
  """
  tiles = xla.sum_over_shards(sums(buffers, leaf_map), shard)
  rows = tiles.swapaxes(0, 1).reshape(SUBLANES, -1)
  terms = rows[: SCALES * len(buffers), : leaf_map.leaves]
  return norm_of_sums(terms.reshape(SCALES, len(buffers), -1))


def sums(
  buffers: Sequence[jax.Array],
  leaf_map: LeafMap,
  decay: jax.Array | None = None,
) -> jax.Array:
  """Compute the sums of `xla.sums`, one leaf per lane.

  Returns:
    float32 `[tiles, 8, 128]`. A tile has the sums of 128 leaves: in its first
    rows those of each buffer at the first scale, then at the second and third.
    The other rows are 0, and the last tile has at least one spare lane.

  Raises:
    NotImplementedError: VMEM does not hold the sums of all leaves.
  """
  check_vmem(leaf_map, len(buffers))
  blocks = register_blocks(leaf_map)
  slots_shape, tiles_shape = _sum_shapes(leaf_map, len(buffers))
  inputs: dict[str, Operand] = {
    **blocks.inputs,
    "buffers": (
      [as_registers(buffer) for buffer in buffers],
      [blocks.spec] * len(buffers),
    ),
  }
  if decay is not None:
    scalar = pl.BlockSpec(memory_space=pltpu.SMEM)
    inputs["decay"] = decay.reshape(1), scalar
  results = tpu_call(
    partial(_kernel, blocks, decayed=decay is not None),
    name="leaf_norms",
    grid=(blocks.steps,),
    prefetched=blocks.prefetched,
    inputs=inputs,
    outputs={
      "tiles": (
        tiles_shape,
        jnp.float32,
        pl.BlockSpec(
          tiles_shape,
          lambda b, shard: (0, 0, 0),
          pipeline_mode=pl.Buffered(1),
        ),
      )
    },
    scratch={"slots": pltpu.VMEM(slots_shape, jnp.float32)},
    parallel=False,
    vmem_limit_bytes=target_chip().vmem_bytes,
    cost=pl.CostEstimate(
      flops=8 * sum(buffer.size for buffer in buffers),
      transcendentals=0,
      bytes_accessed=sum(buffer.nbytes for buffer in buffers),
    ),
  )
  return results["tiles"]


def check_vmem(leaf_map: LeafMap, buffers: int) -> None:
  """Check that VMEM holds the sums of all leaves.

  Raises:
    NotImplementedError: VMEM is too small.
  """
  values = sum(map(math.prod, _sum_shapes(leaf_map, buffers)))
  block = register_blocks(leaf_map).size * math.prod(TILE)
  needed, chip = 4 * (values + 2 * buffers * block), target_chip()
  if needed > chip.vmem_bytes:
    raise NotImplementedError(
      f"leaf_norms: pallas_tpu keeps the sums of {leaf_map.slots} leaves in "
      f"VMEM, {needed:,} bytes with the blocks; {chip.name} has "
      f"{chip.vmem_bytes:,}; use implementation='xla'"
    )


def _sum_shapes(
  leaf_map: LeafMap, buffers: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """Return the shapes of the slots and of the result.

  There are at least two slots more than leaves: one for the registers of leaves
  that are left out, and one for the leaf that continues in the next block.
  """
  slots = _whole_turns(leaf_map.slots + 2)
  slots_shape = (slots, SCALES * buffers, *TILE)
  return slots_shape, (leaf_map.leaves // LANES + 1, *TILE)


def _whole_turns(slots: int) -> int:
  """Round up to a multiple of the slots that a turn of the loop takes."""
  return -(-slots // _UNROLL) * _UNROLL


def _kernel(blocks: RegisterBlocks, refs, *, decayed: bool) -> None:
  leaf_map, step = blocks.leaf_map, pl.program_id(0)
  slots, terms, *_ = refs.slots.shape
  unfinished = leaf_map.slots + 1

  @pl.when(step == 0)
  def _begin():
    refs.tiles[...] = jnp.zeros_like(refs.tiles)
    lax.fori_loop(0, slots, partial(_clear, refs.slots), None)

  totals = [refs.slots[unfinished, term] for term in range(terms)]
  totals = blocks.loop(partial(_add, refs, blocks, decayed), totals)
  for term, total in enumerate(totals):
    refs.slots[unfinished, term] = total

  @pl.when(step == blocks.steps - 1)
  def _end():
    # A turn with fewer slots would take 0.5 us longer on v3.
    given = _whole_turns(leaf_map.slots)
    for slot in range(leaf_map.slots, given):
      _clear(refs.slots, slot)
    loop(0, given, partial(_give, refs, blocks), None, _UNROLL)


def _clear(slots_ref, slot, carry=None) -> None:
  """Set the sums of a slot to zero."""
  del carry
  for term in range(slots_ref.shape[1]):
    slots_ref[slot, term] = zeros()


def _add(
  refs,
  blocks: RegisterBlocks,
  decayed: bool,
  register,
  totals: list[jax.Array],
) -> list[jax.Array]:
  """Add the squares of a register to its leaf's sums, and store them."""
  slot, continues = blocks.slot(refs.codes, register)
  values = [ref[register] for ref in refs.buffers]
  if decayed:
    values[-1] += refs.decay[0] * values[0]
  by_scale = zip(*map(scaled_squares, values), strict=True)
  squares = [square for scale in by_scale for square in scale]
  totals = [
    jnp.where(continues, total, 0.0) + square
    for total, square in zip(totals, squares, strict=True)
  ]
  # Each register overwrites its leaf's slot; the last one has the whole sums.
  for term, total in enumerate(totals):
    refs.slots[slot, term] = total
  return totals


def _give(refs, blocks: RegisterBlocks, slot, carry=None) -> None:
  """Sum a slot over sublanes and lanes, and write it to its leaf's lane."""
  del carry
  sublane = lax.broadcasted_iota(jnp.int32, TILE, 0)
  lane = lax.broadcasted_iota(jnp.int32, TILE, 1)
  # The spare lane takes the slots that have no leaf.
  first_leaf = blocks.first_leaf(refs.codes)
  leaf = jnp.minimum(first_leaf + slot, blocks.leaf_map.leaves)
  column = zeros()
  for term in range(refs.slots.shape[1]):
    row = jnp.sum(refs.slots[slot, term], axis=0, keepdims=True)
    column = jnp.where(sublane == term, row, column)
  column = jnp.sum(column, axis=1, keepdims=True)
  tile, leaf_lane = lax.div(leaf, LANES), lax.rem(leaf, LANES)
  refs.tiles[tile] = jnp.where(lane == leaf_lane, column, refs.tiles[tile])
