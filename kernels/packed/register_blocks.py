"""Walking over the registers of packed buffers, block by block."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..tpu.registers import TILE
from .leaf_map import LeafMap

# Registers of a block: 1 MB of each buffer, of which VMEM has two. With 512 the
# codes would not fit in v3's scalar memory.
_MOST = 256
_UNROLLED = 8  # registers of a turn of the loop


class RegisterBlocks(NamedTuple):
  """Blocks of the registers of buffers, each with what says whose they are.

  Attributes:
    size: registers of a block; the last block may reach beyond the buffer.
    steps: how many blocks a shard has, of the grid.
    codes: int32 `[shards * steps, 1, size + 1]`, of the registers and, behind
      them, the first leaf of the shard.
  """

  size: int
  steps: int
  codes: np.ndarray

  @property
  def code_spec(self) -> pl.BlockSpec:
    """Of the codes, in scalar memory, given the shard's number."""
    return pl.BlockSpec(
      (1, 1, self.size + 1),
      lambda b, number: (number[0] * self.steps + b, 0, 0),
      memory_space=pltpu.SMEM,
    )

  @property
  def spec(self) -> pl.BlockSpec:
    """Of a buffer `[registers, 8, 128]`."""
    return pl.BlockSpec((self.size, *TILE), lambda b, number: (b, 0, 0))

  def loop(self, body: Callable[[Any, Any], Any], carry: Any = None) -> Any:
    """Calls `body(register of the block, carry)` for each in order."""

    def turn(i, carry):
      for register in range(_UNROLLED):
        carry = body(i * _UNROLLED + register, carry)
      return carry

    return lax.fori_loop(0, self.size // _UNROLLED, turn, carry)


def register_blocks(leaf_map: LeafMap) -> RegisterBlocks:
  """Cuts the registers of each shard into blocks.

  What the last block has too much belongs to no leaf; its contents are
  undefined.
  """
  shards, registers = leaf_map.codes.shape
  size = min(_MOST, -(-registers // _UNROLLED) * _UNROLLED)
  steps = -(-registers // size)
  codes = np.full((shards, steps * size), 2 * leaf_map.slots, np.int32)
  codes[:, :registers] = leaf_map.codes
  firsts = np.repeat(leaf_map.firsts, steps)[:, None]
  codes = np.append(codes.reshape(-1, size), firsts, axis=1)
  return RegisterBlocks(size, steps, codes[:, None])


def as_registers(buffer: jax.Array) -> jax.Array:
  """`[rows, 128]` as `[registers, 8, 128]`."""
  return buffer.reshape(-1, *TILE)
