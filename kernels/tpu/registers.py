"""Activations as vector registers: float32 tiles of 8 sublanes by 128 lanes.

A kernel that names its registers is scheduled well by the compiler; one that
slices and shifts whole arrays is not. So the kernels read an activation one
column at a time, as a list of registers.
"""

from collections.abc import Iterable

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


def load(ref, row, columns: Iterable, images) -> list[Registers]:
  """`ref[row, column, images]` of each column, in float32.

  All are read before any is converted: the compiler keeps the order of loads
  and stores, and on some chips converts through memory.
  """
  values = [ref[row, column, images] for column in columns]
  return [_cut(value.astype(jnp.float32)) for value in values]


def _cut(value: jax.Array) -> Registers:
  return [value[i : i + SUBLANES] for i in range(0, value.shape[0], SUBLANES)]


def store(ref, row, first, images, columns: list[Registers]) -> None:
  """The inverse of `load`, from column `first` on; rounds to ref's dtype."""
  values = [_join(registers).astype(ref.dtype) for registers in columns]
  for column, value in enumerate(values):
    ref[row, first + column, images] = value


def _join(registers: Registers) -> jax.Array:
  return registers[0] if len(registers) == 1 else jnp.concatenate(registers)


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
