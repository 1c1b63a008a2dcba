"""Activations as vector registers: float32 tiles of 8 sublanes by 128 lanes.

A kernel that names its registers is scheduled well by the compiler; one that
slices and shifts whole arrays is not. So the kernels read an activation one
column at a time, as a list of registers.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from .bf16_pairs import load_pairs, store_columns, write_pairs

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


def load(ref, row, first, size: int, sublanes, stage=None) -> list[Registers]:
  """`ref[row, column, sublanes]` of `size` columns, in float32.

  All are read before any is converted: the compiler keeps the order of loads
  and stores, and on some chips converts through memory.

  Args:
    ref: Block of an activation.
    row: Row of the block.
    first: First column.
    size: Columns.
    sublanes: Slice of the sublanes that are loaded together.
    stage: Buffer of a row, where columns are loaded in pairs.

  Returns:
    A list of registers per column.
  """
  if stage is not None:
    write_pairs(stage, 0, 1, size, load_pairs(ref, row, first, size))
    return [[stage[0, 1 + column, 0]] for column in range(size)]
  values = [ref[row, first + column, sublanes] for column in range(size)]
  return [_cut(value.astype(jnp.float32)) for value in values]


def _cut(value: jax.Array) -> Registers:
  return [value[i : i + SUBLANES] for i in range(0, value.shape[0], SUBLANES)]


def convert(
  function: Callable[..., Registers],
  sources: Sequence,
  row,
  first,
  size: int,
  sublanes,
  to: tuple,
  stage=None,
) -> None:
  """Writes a function of some refs to a float32 buffer, column by column.

  Args:
    function: Of a list of registers per ref, register by register.
    sources: Refs.
    row: Row of the refs.
    first: First column of the refs.
    size: Columns.
    sublanes: Slice of the sublanes that are loaded together.
    to: The buffer, and the row and column there.
    stage: As for `load`; the registers then hold pairs of columns.
  """
  buffer, to_row, to_first = to
  if stage is not None:
    loaded = [load_pairs(ref, row, first, size) for ref in sources]
    results = [function(*pairs) for pairs in zip(*loaded, strict=True)]
    write_pairs(buffer, to_row, to_first, size, results)
    return
  loaded = [load(ref, row, first, size, sublanes) for ref in sources]
  results = [function(*columns) for columns in zip(*loaded, strict=True)]
  for column, registers in enumerate(results):
    for p, register in enumerate(registers):
      buffer[to_row, to_first + column, p] = register


def store(
  ref, row, first, sublanes, columns: list[Registers], stage=None
) -> None:
  """The inverse of `load`, from column `first` on; rounds to ref's dtype."""
  if stage is not None:
    store_columns(ref, row, first, [column for (column,) in columns], stage)
    return
  values = [_join(registers).astype(ref.dtype) for registers in columns]
  for column, value in enumerate(values):
    ref[row, first + column, sublanes] = value


def _join(registers: Registers) -> jax.Array:
  return registers[0] if len(registers) == 1 else jnp.concatenate(registers)


def sublane_images(stage=None) -> jax.Array:
  """Which of 8 images each sublane of a column holds."""
  sublane = lax.broadcasted_iota(jnp.int32, TILE, 0)
  if stage is None:
    return sublane
  return (sublane & 3) * 2 + (sublane >> 2)


def batch_masks(
  first, batch: int, rows: int, stage=None
) -> list[jax.Array] | None:
  """Which sublanes hold images, of the registers of a column.

  Args:
    first: The image in the first sublane.
    batch: Images in all.
    rows: Images that are loaded together.
    stage: As for `load`.

  Returns:
    A mask per register; None where every load is full.
  """
  if batch % rows == 0:
    return None
  image = sublane_images(stage) + first
  return [image + i < batch for i in range(0, rows, SUBLANES)]


def pair_masks(first, batch: int) -> list[jax.Array] | None:
  """As `batch_masks`, of a pair of columns."""
  if batch % SUBLANES == 0:
    return None
  sublane = lax.broadcasted_iota(jnp.int32, TILE, 0)
  image = (sublane & 3) * 2 + first
  return [image < batch, image + 1 < batch]


def masked(registers: Registers, masks: list[jax.Array] | None) -> Registers:
  """Zeros where there is no image, for anything may lie there."""
  if masks is None:
    return registers
  return [
    jnp.where(mask, register, 0.0)
    for register, mask in zip(registers, masks, strict=True)
  ]
