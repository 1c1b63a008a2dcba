"""The squares of leaves, summed by one kernel that reads the buffers once."""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ...tpu.chip import target_chip
from ...tpu.registers import LANES, SUBLANES, TILE, zeros
from ..leaf_map import LeafMap
from ..packing import Shard
from ..register_blocks import RegisterBlocks, as_registers, register_blocks
from . import xla
from .scaled_norm import SCALES, norm_of_sums, scaled_squares

_UNROLLED = 8  # slots of a turn of the loop


def norms(
  buffers: Sequence[jax.Array], leaf_map: LeafMap, shard: Shard | None
) -> jax.Array:
  """As `xla.norms`.

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
  """As `xla.sums`, a leaf in a lane.

  Returns:
    float32 `[tiles, 8, 128]`, for each of 128 leaves the sums of the buffers at
    the first scale, those at the next, and so on; what is left is 0, and there
    is room for one more leaf.

  Raises:
    NotImplementedError: VMEM does not hold the sums of all leaves.
  """
  blocks = register_blocks(leaf_map)
  terms = SCALES * len(buffers)
  decays = [] if decay is None else [decay.reshape(1)]
  # A slot more for what nobody asked for, and one for the leaf at hand.
  kept = (_whole_turns(leaf_map.slots + 2), terms, *TILE)
  results = (leaf_map.leaves // LANES + 1, *TILE)
  size = math.prod(kept) + math.prod(results)
  _check_vmem(leaf_map.slots, size, len(buffers), blocks.size)
  return pl.pallas_call(
    partial(_kernel, blocks=blocks, leaf_map=leaf_map),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=1,
      grid=(blocks.steps,),
      in_specs=[
        blocks.code_spec,
        *[pl.BlockSpec(memory_space=pltpu.SMEM)] * len(decays),
        *[blocks.spec] * len(buffers),
      ],
      out_specs=pl.BlockSpec(
        results, lambda b, number: (0, 0, 0), pipeline_mode=pl.Buffered(1)
      ),
      scratch_shapes=[pltpu.VMEM(kept, jnp.float32)],
    ),
    out_shape=jax.ShapeDtypeStruct(
      results,
      jnp.float32,
      manual_axis_type=jax.typeof(buffers[0]).manual_axis_type,
    ),
    compiler_params=pltpu.CompilerParams(
      vmem_limit_bytes=target_chip().vmem_bytes
    ),
    cost_estimate=pl.CostEstimate(
      flops=8 * sum(x.size for x in buffers),
      transcendentals=0,
      bytes_accessed=sum(x.nbytes for x in buffers),
    ),
    name="leaf_norms",
  )(
    jnp.reshape(leaf_map.number, 1),
    jnp.asarray(blocks.codes),
    *decays,
    *map(as_registers, buffers),
  )


def _whole_turns(slots: int) -> int:
  return -(-slots // _UNROLLED) * _UNROLLED


def _check_vmem(leaves: int, sums: int, buffers: int, block: int) -> None:
  bytes_, chip = 4 * sums + 2 * 4096 * buffers * block, target_chip()
  if bytes_ > chip.vmem_bytes:
    raise NotImplementedError(
      f"leaf_norms: pallas_tpu keeps the sums of {leaves} leaves in VMEM, "
      f"{bytes_} bytes with the blocks; {chip.name} has {chip.vmem_bytes} for "
      "it"
    )


def _kernel(
  number_ref,
  codes_ref,  # [1, 1, registers + 1] of a block
  *refs,  # the decay or nothing, and the buffers
  blocks: RegisterBlocks,
  leaf_map: LeafMap,
):
  *inputs, tiles_ref, kept_ref = refs
  del number_ref
  terms = kept_ref.shape[1]
  buffer_refs = inputs[-terms // SCALES :]
  decay_ref = inputs[0] if len(inputs) > len(buffer_refs) else None
  leaves, slots = leaf_map.leaves, leaf_map.slots

  def clear(slot, _=None):
    for term in range(terms):
      kept_ref[slot, term] = zeros()

  @pl.when(pl.program_id(0) == 0)
  def _():
    tiles_ref[...] = jnp.zeros_like(tiles_ref)
    lax.fori_loop(0, kept_ref.shape[0], clear, None)

  def add(register, sums):
    code = codes_ref[0, 0, register]
    slot, goes_on = code >> 1, (code & 1) == 1
    values = [ref[register] for ref in buffer_refs]
    if decay_ref is not None:
      values[-1] += decay_ref[0] * values[0]
    squares = zip(*map(scaled_squares, values), strict=True)
    added = [x for scale in squares for x in scale]
    sums = [
      jnp.where(goes_on, total, 0.0) + x
      for total, x in zip(sums, added, strict=True)
    ]
    # The last register of a leaf leaves the whole sum there.
    for term, total in enumerate(sums):
      kept_ref[slot, term] = total
    return sums

  # A leaf may go on in the next block.
  sums = blocks.loop(add, [kept_ref[slots + 1, term] for term in range(terms)])
  for term, total in enumerate(sums):
    kept_ref[slots + 1, term] = total

  @pl.when(pl.program_id(0) == blocks.steps - 1)
  def _():
    first = codes_ref[0, 0, blocks.size]
    sublane = lax.broadcasted_iota(jnp.int32, TILE, 0)
    lane = lax.broadcasted_iota(jnp.int32, TILE, 1)

    def give(slot):
      leaf = jnp.minimum(first + slot, leaves)
      column = zeros()
      for term in range(terms):
        row = jnp.sum(kept_ref[slot, term], axis=0, keepdims=True)
        column = jnp.where(sublane == term, row, column)
      column = jnp.sum(column, axis=1, keepdims=True)
      tile = tiles_ref[leaf // LANES]
      tiles_ref[leaf // LANES] = jnp.where(lane == leaf % LANES, column, tile)

    def turn(i, _):
      for slot in range(_UNROLLED):
        give(i * _UNROLLED + slot)

    for slot in range(slots, _whole_turns(slots)):
      clear(slot)
    lax.fori_loop(0, _whole_turns(slots) // _UNROLLED, turn, None)
