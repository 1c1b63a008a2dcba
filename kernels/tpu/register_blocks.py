"""Walking over the registers of packed buffers, block by block."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from .registers import TILE

# Registers of a block: 1 MB of each buffer, of which VMEM has two. With 512 the
# codes would not fit in v3's scalar memory.
_MOST = 256
_UNROLLED = 8  # registers of a turn of the loop


class RegisterBlocks(NamedTuple):
  """Blocks of the registers of buffers, each with its segment's code.

  Attributes:
    size: registers of a block; the last block may reach beyond the buffer.
    codes: int32 `[blocks, 1, size]`.
  """

  size: int
  codes: jax.Array

  @property
  def steps(self) -> int:
    """How many blocks there are, of the grid."""
    return self.codes.shape[0]

  @property
  def code_spec(self) -> pl.BlockSpec:
    """Of the codes, in scalar memory."""
    return pl.BlockSpec(
      (1, 1, self.size), lambda b: (b, 0, 0), memory_space=pltpu.SMEM
    )

  @property
  def spec(self) -> pl.BlockSpec:
    """Of a buffer `[registers, 8, 128]`."""
    return pl.BlockSpec((self.size, *TILE), lambda b: (b, 0, 0))

  def loop(self, body: Callable[[Any, Any], Any], carry: Any = None) -> Any:
    """Calls `body(register of the block, carry)` for each in order."""

    def turn(i, carry):
      for register in range(_UNROLLED):
        carry = body(i * _UNROLLED + register, carry)
      return carry

    return lax.fori_loop(0, self.size // _UNROLLED, turn, carry)


def register_blocks(codes: jax.Array, beyond: int) -> RegisterBlocks:
  """Cuts `[registers]` into blocks.

  Args:
    codes: int32, of each register.
    beyond: the code of what the last block has too much; its contents are
      undefined.
  """
  registers = codes.shape[0]
  size = min(_MOST, -(-registers // _UNROLLED) * _UNROLLED)
  count = -(-registers // size)
  codes = jnp.pad(
    codes, (0, count * size - registers), constant_values=beyond
  ).reshape(count, 1, size)
  return RegisterBlocks(size, codes)


def as_registers(buffer: jax.Array) -> jax.Array:
  """`[rows, 128]` as `[registers, 8, 128]`."""
  return buffer.reshape(-1, *TILE)
