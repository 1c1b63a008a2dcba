"""Blocks of a packed buffer's registers, for kernels that go over them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..tpu.loops import loop
from ..tpu.pallas_call import Operand
from ..tpu.registers import TILE
from .leaf_map import LeafMap, decode, encode

# Registers of a block: 1 MB of each buffer, and VMEM has two blocks of each.
# The codes of 512 registers would not fit in v3's scalar memory.
_LARGEST = 256
_UNROLL = 8  # registers


class RegisterBlocks(NamedTuple):
  """Blocks of registers, with the codes that say which leaf each belongs to.

  Attributes:
    size: Registers of a block; the last block may reach beyond the buffer.
    steps: Blocks of a shard, which are the steps of the grid.
    leaf_map: Map of the registers.
  """

  size: int
  steps: int
  leaf_map: LeafMap

  @property
  def prefetched(self) -> dict[str, jax.Array]:
    """Number of the shard, for the index maps of `inputs`."""
    return {"shard": jnp.reshape(self.leaf_map.number, 1)}

  @property
  def inputs(self) -> dict[str, Operand]:
    """Codes of each block, in scalar memory.

    A block is `[1, 1, size + 1]`: the codes of its registers and the first leaf
    of the shard, which a copy of its own would fetch 0.6 us later on v3.
    """
    leaf_map, steps = self.leaf_map, self.steps
    shards, registers = leaf_map.codes.shape
    # The registers beyond the buffer belong to no leaf.
    codes = np.full(
      (shards, steps * self.size), encode(leaf_map.slots, False), np.int32
    )
    codes[:, :registers] = leaf_map.codes
    firsts = np.repeat(leaf_map.firsts, steps)[:, None]
    codes = np.append(codes.reshape(-1, self.size), firsts, axis=1)
    spec = pl.BlockSpec(
      (1, 1, self.size + 1),
      lambda b, shard: (shard[0] * steps + b, 0, 0),
      memory_space=pltpu.SMEM,
    )
    return {"codes": (jnp.asarray(codes[:, None]), spec)}

  @property
  def spec(self) -> pl.BlockSpec:
    """Block of a buffer `[registers, 8, 128]`."""
    return pl.BlockSpec((self.size, *TILE), lambda b, shard: (b, 0, 0))

  def slot(self, codes_ref, register) -> tuple[jax.Array, jax.Array]:
    """Return the slot of a register, and True if its leaf continues in it."""
    return decode(codes_ref[0, 0, register])

  def first_leaf(self, codes_ref) -> jax.Array:
    """Return the first mapped leaf of the shard."""
    return codes_ref[0, 0, self.size]

  def loop(self, body: Callable[[Any, Any], Any], carry: Any = None) -> Any:
    """Call `body(register, carry)` for each register of a block, in order."""
    return loop(0, self.size, body, carry, _UNROLL)


def register_blocks(leaf_map: LeafMap) -> RegisterBlocks:
  """Cut the registers of each shard into blocks."""
  _, registers = leaf_map.codes.shape
  size = min(_LARGEST, -(-registers // _UNROLL) * _UNROLL)
  return RegisterBlocks(size, -(-registers // size), leaf_map)


def as_registers(buffer: jax.Array) -> jax.Array:
  """Reshape `[rows, 128]` to `[registers, 8, 128]`."""
  return buffer.reshape(-1, *TILE)
