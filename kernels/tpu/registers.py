"""Activations as vector registers: float32 tiles of 8 sublanes by 128 lanes.

A kernel that names its registers is scheduled well by the compiler; one that
slices and shifts whole arrays is not. So the kernels read an activation one
column at a time, as a list of registers.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

SUBLANES = 8
LANES = 128
TILE = (SUBLANES, LANES)

Registers = list[jax.Array]  # of shape TILE, float32


def packed_rows(dtype: jnp.dtype) -> int:
  """Rows that are loaded together: 8 of float32, 16 of bfloat16."""
  return SUBLANES * 4 // jnp.dtype(dtype).itemsize


def zeros() -> jax.Array:
  """A register of zeros."""
  return jnp.zeros(TILE, jnp.float32)


def broadcast(vector: jax.Array) -> jax.Array:
  """A `[1, 128]` row in every sublane, float32."""
  return jnp.broadcast_to(vector.astype(jnp.float32), TILE)


def load(ref, row, column, rows) -> Registers:
  """`ref[row, column, rows]` in float32, cut into registers."""
  value = ref[row, column, rows].astype(jnp.float32)
  return [value[i : i + SUBLANES] for i in range(0, value.shape[0], SUBLANES)]


def store(ref, row, column, rows, registers: Registers) -> None:
  """The inverse of `load`; rounds to ref's dtype."""
  whole = registers[0] if len(registers) == 1 else jnp.concatenate(registers)
  ref[row, column, rows] = whole.astype(ref.dtype)


def batch_masks(first, batch: int, rows: int) -> list[jax.Array] | None:
  """Which sublanes hold images, of the registers that `load` returns.

  Args:
    first: The image in the first sublane.
    batch: Images in all.
    rows: Images that are loaded together.

  Returns:
    A mask per register; None where every load is full.
  """
  if batch % rows == 0:
    return None
  image = lax.broadcasted_iota(jnp.int32, TILE, 0) + first
  return [image + i < batch for i in range(0, rows, SUBLANES)]


def masked(registers: Registers, masks: list[jax.Array] | None) -> Registers:
  """Zeros where there is no image, for anything may lie there."""
  if masks is None:
    return registers
  return [
    jnp.where(mask, register, 0.0)
    for register, mask in zip(registers, masks, strict=True)
  ]


def loop(start, stop, body) -> None:
  """`for i in range(start, stop): body(i)`; in Python where it is one turn."""
  if isinstance(start, int) and isinstance(stop, int) and stop - start <= 1:
    for i in range(start, stop):
      body(i)
  else:
    pl.loop(start, stop)(body)
