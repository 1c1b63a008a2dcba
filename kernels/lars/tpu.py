"""The step of packed buffers by one kernel that overwrites them."""

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
  """As `xla.apply`; `w` and `v` are overwritten where nobody else has them."""
  blocks = register_blocks(leaf_map)
  scalars = [x.reshape(1) for x in settings.scalars.values()]
  registers = [as_registers(x) for x in (w, g, v)]
  rates = -(-(leaf_map.slots + 1) // SUBLANES) * SUBLANES
  result = jax.ShapeDtypeStruct(
    registers[0].shape,
    jnp.float32,
    manual_axis_type=jax.typeof(w).manual_axis_type,
  )
  new_w, new_v = pl.pallas_call(
    partial(_kernel, blocks=blocks, settings=settings, leaf_map=leaf_map),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=1,
      grid=(blocks.steps,),
      in_specs=[
        blocks.code_spec,
        *[pl.BlockSpec(memory_space=pltpu.SMEM)] * len(scalars),
        pl.BlockSpec(sums.shape, lambda b, number: (0, 0, 0)),
        *[blocks.spec] * 3,
      ],
      out_specs=[blocks.spec] * 2,
      scratch_shapes=[pltpu.VMEM((rates, LANES), jnp.float32)],
    ),
    out_shape=[result] * 2,
    input_output_aliases={3 + len(scalars): 0, 5 + len(scalars): 1},
    compiler_params=pltpu.CompilerParams(
      vmem_limit_bytes=target_chip().vmem_bytes
    ),
    cost_estimate=pl.CostEstimate(
      flops=6 * w.size, transcendentals=0, bytes_accessed=5 * w.nbytes
    ),
    name="lars_apply",
  )(
    jnp.reshape(leaf_map.number, 1),
    jnp.asarray(blocks.codes),
    *scalars,
    sums,
    *registers,
  )
  return new_w.reshape(w.shape), new_v.reshape(v.shape)


def _kernel(
  number_ref,
  codes_ref,  # [1, 1, registers + 1] of a block
  *refs,
  blocks: RegisterBlocks,
  settings: Settings,
  leaf_map: LeafMap,
):
  *scalar_refs, sums_ref, w_ref, g_ref, v_ref, new_w_ref, new_v_ref = refs[:-1]
  rates_ref = refs[-1]  # a row for each slot, and one for the rest
  del number_ref
  scalars = zip(settings.scalars, scalar_refs, strict=True)
  in_kernel = settings._replace(**{name: ref[0] for name, ref in scalars})
  leaves, slots = leaf_map.leaves, leaf_map.slots

  @pl.when(pl.program_id(0) == 0)
  def _():
    first = codes_ref[0, 0, blocks.size]
    rates = [_rates(sums_ref[i], in_kernel) for i in range(sums_ref.shape[0])]
    lane = lax.broadcasted_iota(jnp.int32, TILE, 1)
    sublane = lax.broadcasted_iota(jnp.int32, TILE, 0)

    def spread(i, _):
      slot = i * SUBLANES + sublane
      leaf = jnp.where(slot < slots, first + slot, leaves)
      own = zeros()
      for tile, row in enumerate(rates):
        own = jnp.where(lane + tile * LANES == leaf, row, own)
      rates_ref[pl.ds(i * SUBLANES, SUBLANES)] = jnp.broadcast_to(
        jnp.sum(own, axis=1, keepdims=True), TILE
      )

    lax.fori_loop(0, rates_ref.shape[0] // SUBLANES, spread, None)

  def move(register, _):
    slot = codes_ref[0, 0, register] >> 1
    rate = rates_ref[pl.ds(slot, 1)]
    decay = jnp.where(slot < slots, in_kernel.weight_decay, 0.0)
    w = w_ref[register]
    change, new_v_ref[register] = step(
      *(w, g_ref[register], v_ref[register]), *(rate, decay, in_kernel)
    )
    new_w_ref[register] = w - change

  blocks.loop(move)


def _rates(sums: jax.Array, settings: Settings) -> jax.Array:
  """The rates of 128 leaves `[1, 128]`, given their sums `[8, 128]`.

  What has no leaf has norm 0, and so the learning rate.
  """
  rows = [sums[term : term + 1] for term in range(2 * SCALES)]
  # At each scale the weights, and then the gradients.
  return adapted_rate(
    norm_of_sums(rows[0::2]), norm_of_sums(rows[1::2]), settings
  )
