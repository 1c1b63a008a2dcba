"""Step of packed buffers by one kernel that overwrites them."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..packed.leaf_map import LeafMap
from ..packed.norms import tpu as leaf_norms
from ..packed.norms.scaled_norm import SCALES, norm_of_sums
from ..packed.register_blocks import (
  RegisterBlocks,
  as_registers,
  register_blocks,
)
from ..tpu.chip import target_chip
from ..tpu.pallas_call import tpu_call
from ..tpu.registers import LANES, SUBLANES, TILE, zeros
from .formula import Settings, adapted_rate, step

sums = leaf_norms.sums


def apply(
  w: jax.Array,
  g: jax.Array,
  v: jax.Array,
  sums: jax.Array,
  leaf_map: LeafMap,
  settings: Settings,
) -> tuple[jax.Array, jax.Array]:
  """Compute `xla.apply`; overwrite `w` and `v` if nothing else reads them."""
  blocks = register_blocks(leaf_map)
  scalar = pl.BlockSpec(memory_space=pltpu.SMEM)
  scalars = {name: x.reshape(1) for name, x in settings.scalars.items()}
  rates_rows = -(-(leaf_map.slots + 1) // SUBLANES) * SUBLANES
  registers = as_registers(w)
  moved = (registers.shape, jnp.float32, blocks.spec)
  results = tpu_call(
    partial(_kernel, blocks, settings),
    name="lars_apply",
    grid=(blocks.steps,),
    prefetched=blocks.prefetched,
    inputs={
      **blocks.inputs,
      "scalars": (scalars, dict.fromkeys(scalars, scalar)),
      "sums": (sums, pl.BlockSpec(sums.shape, lambda b, shard: (0, 0, 0))),
      "w": (registers, blocks.spec),
      "g": (as_registers(g), blocks.spec),
      "v": (as_registers(v), blocks.spec),
    },
    outputs={"new_w": moved, "new_v": moved},
    scratch={"rates": pltpu.VMEM((rates_rows, LANES), jnp.float32)},
    overwrites={"new_w": "w", "new_v": "v"},
    parallel=False,
    vmem_limit_bytes=target_chip().vmem_bytes,
    cost=pl.CostEstimate(
      flops=6 * w.size, transcendentals=0, bytes_accessed=5 * w.nbytes
    ),
  )
  return results["new_w"].reshape(w.shape), results["new_v"].reshape(v.shape)


def _kernel(blocks: RegisterBlocks, settings: Settings, refs) -> None:
  scalars = {name: ref[0] for name, ref in refs.scalars.items()}
  settings = settings._replace(**scalars)
  leaf_map = blocks.leaf_map

  @pl.when(pl.program_id(0) == 0)
  def _begin():
    _spread_rates(refs, blocks, settings)

  def move(register, carry):
    del carry
    slot, _ = blocks.slot(refs.codes, register)
    rate = refs.rates[pl.ds(slot, 1)]
    decay = jnp.where(slot < leaf_map.slots, settings.weight_decay, 0.0)
    w = refs.w[register]
    change, refs.new_v[register] = step(
      w, refs.g[register], refs.v[register], rate, decay, settings
    )
    refs.new_w[register] = w - change

  blocks.loop(move)


def _spread_rates(refs, blocks: RegisterBlocks, settings: Settings) -> None:
  """Write the rate of each slot to all lanes of the slot's row.

  Rows from `slots` on get the learning rate, for leaves that are not adapted.
  """
  tiles = [_rates(refs.sums[i], settings) for i in range(refs.sums.shape[0])]
  leaf_map, first_leaf = blocks.leaf_map, blocks.first_leaf(refs.codes)
  lane = lax.broadcasted_iota(jnp.int32, TILE, 1)
  sublane = lax.broadcasted_iota(jnp.int32, TILE, 0)

  def spread(i, carry):
    del carry
    slot = i * SUBLANES + sublane
    # The last tile's first spare lane has norm 0, and so the learning rate.
    leaf = jnp.where(slot < leaf_map.slots, first_leaf + slot, leaf_map.leaves)
    own = zeros()
    for tile, row in enumerate(tiles):
      own = jnp.where(lane + tile * LANES == leaf, row, own)
    refs.rates[pl.ds(i * SUBLANES, SUBLANES)] = jnp.broadcast_to(
      jnp.sum(own, axis=1, keepdims=True), TILE
    )

  lax.fori_loop(0, refs.rates.shape[0] // SUBLANES, spread, None)


def _rates(sums: jax.Array, settings: Settings) -> jax.Array:
  """Compute the rates of 128 leaves, `[1, 128]`, from sums `[8, 128]`."""
  rows = [sums[term : term + 1] for term in range(2 * SCALES)]
  # Rows alternate between weights and gradients.
  return adapted_rate(
    norm_of_sums(rows[0::2]), norm_of_sums(rows[1::2]), settings
  )
