"""The step of packed buffers by one kernel that overwrites them."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..leaf_norms import pallas_tpu as leaf_norms
from ..segments import Segments
from ..tpu.chip import target_chip
from ..tpu.register_blocks import (
  RegisterBlocks,
  as_registers,
  register_blocks,
)
from .formula import Settings, step

norms = leaf_norms.norms


def apply(
  w: jax.Array,
  g: jax.Array,
  v: jax.Array,
  rates: jax.Array,
  decays: jax.Array,
  segments: Segments,
  settings: Settings,
) -> tuple[jax.Array, jax.Array]:
  """As `xla.apply`; `w` and `v` are overwritten where nobody else has them."""
  blocks = register_blocks(segments.slot_of_register, beyond=segments.slots)
  by_slot = [segments.to_slots(x) for x in (rates, decays)]
  in_smem = pl.BlockSpec(memory_space=pltpu.SMEM)
  registers = [as_registers(x) for x in (w, g, v)]
  result = jax.ShapeDtypeStruct(
    registers[0].shape,
    jnp.float32,
    manual_axis_type=jax.typeof(w).manual_axis_type,
  )
  new_w, new_v = pl.pallas_call(
    partial(_kernel, blocks=blocks, settings=settings),
    grid=(blocks.steps,),
    in_specs=[blocks.code_spec, *[in_smem] * 3, *[blocks.spec] * 3],
    out_specs=[blocks.spec] * 2,
    out_shape=[result] * 2,
    input_output_aliases={4: 0, 6: 1},
    compiler_params=pltpu.CompilerParams(
      vmem_limit_bytes=target_chip().vmem_bytes
    ),
    cost_estimate=pl.CostEstimate(
      flops=6 * w.size, transcendentals=0, bytes_accessed=5 * w.nbytes
    ),
    name="lars_apply",
  )(blocks.codes, *by_slot, jnp.reshape(settings.momentum, 1), *registers)
  return new_w.reshape(w.shape), new_v.reshape(v.shape)


def _kernel(
  slots_ref,  # [1, 1, registers] of a block
  rates_ref,  # [slots]
  decays_ref,  # [slots]
  momentum_ref,  # [1]
  w_ref,  # [registers, 8, 128]
  g_ref,
  v_ref,
  new_w_ref,
  new_v_ref,
  *,
  blocks: RegisterBlocks,
  settings: Settings,
):
  in_kernel = settings._replace(momentum=momentum_ref[0])

  def move(register, _):
    slot = slots_ref[0, 0, register]
    w = w_ref[register]
    change, new_v_ref[register] = step(
      *(w, g_ref[register], v_ref[register]),
      *(rates_ref[slot], decays_ref[slot], in_kernel),
    )
    new_w_ref[register] = w - change

  blocks.loop(move)
