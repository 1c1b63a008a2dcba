"""The squares of leaves, summed by one kernel that reads the buffers once."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..packing import Shard
from ..segments import Segments
from ..tpu.chip import target_chip
from ..tpu.register_blocks import (
  RegisterBlocks,
  as_registers,
  register_blocks,
)
from ..tpu.registers import TILE, zeros
from . import xla
from .scaled import SCALES, norm_of_sums, scaled_squares


def norms(
  buffers: Sequence[jax.Array],
  segments: Segments,
  shard: Shard | None,
  decay: jax.Array | None = None,
) -> jax.Array:
  """As `xla.norms`.

  Raises:
    NotImplementedError: VMEM does not hold the sums of all leaves.
  """
  leaves = segments.to_leaves(_slot_sums(buffers, segments, decay))
  return norm_of_sums(xla.everywhere(leaves, shard))


def _slot_sums(buffers, segments: Segments, decay) -> jax.Array:
  """The sums of squares at each scale, float32 `[3, buffers, slots]`."""
  blocks = register_blocks(segments.codes, beyond=2 * segments.slots)
  sums = SCALES * len(buffers)
  shape = (sums, segments.slots + 1, *TILE)
  decays = [] if decay is None else [decay.reshape(1)]
  _check_vmem(shape, len(buffers), blocks.size)
  result = pl.pallas_call(
    partial(_kernel, blocks=blocks, count=len(buffers)),
    grid=(blocks.steps,),
    in_specs=[
      blocks.code_spec,
      *[pl.BlockSpec(memory_space=pltpu.SMEM)] * len(decays),
      *[blocks.spec] * len(buffers),
    ],
    out_specs=pl.BlockSpec(
      shape, lambda b: (0, 0, 0, 0), pipeline_mode=pl.Buffered(1)
    ),
    out_shape=jax.ShapeDtypeStruct(
      shape,
      jnp.float32,
      manual_axis_type=jax.typeof(buffers[0]).manual_axis_type,
    ),
    scratch_shapes=[pltpu.VMEM((sums, *TILE), jnp.float32)],
    compiler_params=pltpu.CompilerParams(
      vmem_limit_bytes=target_chip().vmem_bytes
    ),
    cost_estimate=pl.CostEstimate(
      flops=8 * sum(x.size for x in buffers),
      transcendentals=0,
      bytes_accessed=sum(x.nbytes for x in buffers),
    ),
    name="leaf_norms",
  )(blocks.codes, *decays, *map(as_registers, buffers))
  totals = jnp.sum(result, axis=(2, 3))[:, :-1]
  return totals.reshape(SCALES, len(buffers), segments.slots)


def _check_vmem(shape, buffers: int, block: int) -> None:
  registers = shape[0] * (shape[1] + 1) + 2 * buffers * block
  bytes_, chip = 4096 * registers, target_chip()
  if bytes_ > chip.vmem_bytes:
    raise NotImplementedError(
      f"leaf_norms: pallas_tpu keeps the sums of {shape[1] - 1} leaves in "
      f"VMEM, {bytes_} bytes with the blocks; {chip.name} has "
      f"{chip.vmem_bytes} for it"
    )


def _kernel(codes_ref, *refs, blocks: RegisterBlocks, count: int):
  *decay_ref, sums_ref, kept_ref = (*refs[: -2 - count], *refs[-2:])
  buffer_refs = refs[-2 - count : -2]
  terms, slots = sums_ref.shape[:2]

  @pl.when(pl.program_id(0) == 0)
  def _():
    def clear(slot, _):
      for i in range(terms):
        sums_ref[i, slot] = zeros()

    lax.fori_loop(0, slots, clear, None)
    for i in range(terms):
      kept_ref[i] = zeros()

  def add(register, sums):
    code = codes_ref[0, 0, register]
    slot, goes_on = code >> 1, (code & 1) == 1
    values = [ref[register] for ref in buffer_refs]
    if decay_ref:
      values[-1] += decay_ref[0][0] * values[0]
    squares = zip(*map(scaled_squares, values), strict=True)
    added = [x for scale in squares for x in scale]
    sums = [
      jnp.where(goes_on, total, 0.0) + x
      for total, x in zip(sums, added, strict=True)
    ]
    # The last register of a leaf leaves the whole sum there.
    for i, total in enumerate(sums):
      sums_ref[i, slot] = total
    return sums

  # A leaf may go on in the next block.
  sums = blocks.loop(add, [kept_ref[i] for i in range(terms)])
  for i, total in enumerate(sums):
    kept_ref[i] = total
