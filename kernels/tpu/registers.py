"""Activations as vector registers: float32 tiles of 8 sublanes by 128 lanes.

The compiler schedules a kernel well that names its registers, and badly one
that slices and shifts whole arrays. So the kernels read an activation one
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

Registers = list[jax.Array]
"""Float32 registers of shape `TILE`."""


def packed_rows(dtype: jnp.dtype) -> int:
  """Count the rows that one load reads: 8 of float32, 16 of bfloat16."""
  return SUBLANES * 4 // jnp.dtype(dtype).itemsize


def zeros() -> jax.Array:
  """Make a register of zeros."""
  return jnp.zeros(TILE, jnp.float32)


def broadcast(vector: jax.Array) -> jax.Array:
  """Broadcast a `[1, 128]` row to every sublane, in float32."""
  return jnp.broadcast_to(vector.astype(jnp.float32), TILE)


def load(
  ref, row, first, size: int, sublanes, unpack_scratch=None
) -> list[Registers]:
  """Load `ref[row, column, sublanes]` for `size` columns, in float32.

  All columns are loaded before any is converted: the compiler keeps the order
  of loads and stores, and some chips convert through memory.

  Args:
    ref: Block of an activation.
    row: Row of the block.
    first: First column.
    size: Number of columns.
    sublanes: Slice of the sublanes that are loaded together.
    unpack_scratch: Buffer of a row to convert bfloat16 pairs in; None to load
      columns one by one.

  Returns:
    A list of registers per column.
  """
  if unpack_scratch is not None:
    pairs = load_pairs(ref, row, first, size)
    write_pairs(unpack_scratch, 0, 1, size, pairs)
    return [[unpack_scratch[0, 1 + column, 0]] for column in range(size)]
  values = [ref[row, first + column, sublanes] for column in range(size)]
  return [_split(value.astype(jnp.float32)) for value in values]


def _split(value: jax.Array) -> Registers:
  return [value[i : i + SUBLANES] for i in range(0, value.shape[0], SUBLANES)]


def convert(
  function: Callable[..., Registers],
  sources: Sequence,
  row,
  first,
  size: int,
  sublanes,
  to: tuple,
  unpack_scratch=None,
) -> None:
  """Write a function of some refs to a float32 buffer, column by column.

  Args:
    function: Function of a list of registers per ref, register by register.
    sources: Refs.
    row: Row of the refs.
    first: First column of the refs.
    size: Number of columns.
    sublanes: Slice of the sublanes that are loaded together.
    to: The buffer, and the row and column to write to.
    unpack_scratch: See `load`; if given, registers hold pairs of columns.
  """
  buffer, to_row, to_first = to
  if unpack_scratch is not None:
    pairs = [load_pairs(ref, row, first, size) for ref in sources]
    results = [function(*registers) for registers in zip(*pairs, strict=True)]
    write_pairs(buffer, to_row, to_first, size, results)
    return
  loaded = [load(ref, row, first, size, sublanes) for ref in sources]
  results = [function(*columns) for columns in zip(*loaded, strict=True)]
  for column, registers in enumerate(results):
    for r, register in enumerate(registers):
      buffer[to_row, to_first + column, r] = register


def store(
  ref, row, first, sublanes, columns: list[Registers], unpack_scratch=None
) -> None:
  """Round columns to the dtype of a ref and store them: the inverse of `load`.

  Args:
    ref: Block of an activation.
    row: Row of the block.
    first: First column.
    sublanes: Slice of the sublanes that are stored together.
    columns: A list of registers per column.
    unpack_scratch: See `load`.
  """
  if unpack_scratch is not None:
    registers = [register for (register,) in columns]
    store_columns(ref, row, first, registers, unpack_scratch)
    return
  values = [_join(registers).astype(ref.dtype) for registers in columns]
  for column, value in enumerate(values):
    ref[row, first + column, sublanes] = value


def _join(registers: Registers) -> jax.Array:
  return registers[0] if len(registers) == 1 else jnp.concatenate(registers)


def sublane_images(unpack_scratch=None) -> jax.Array:
  """Make the number of the image in each sublane of a column, 0 to 7.

  Columns that went through `unpack_scratch` hold 0, 2, 4, 6, 1, 3, 5, 7.
  """
  sublane = lax.broadcasted_iota(jnp.int32, TILE, 0)
  if unpack_scratch is None:
    return sublane
  return (sublane & 3) * 2 + (sublane >> 2)


def batch_masks(
  first, batch: int, rows: int, unpack_scratch=None
) -> list[jax.Array] | None:
  """Mask the sublanes that hold images, for each register of a column.

  Args:
    first: Image in the first sublane.
    batch: Number of images.
    rows: Images that are loaded together.
    unpack_scratch: See `load`.

  Returns:
    A mask per register; None if every sublane holds an image.
  """
  if batch % rows == 0:
    return None
  image = sublane_images(unpack_scratch) + first
  return [image + i < batch for i in range(0, rows, SUBLANES)]


def pair_masks(first, batch: int) -> list[jax.Array] | None:
  """Mask the sublanes that hold images, for the registers of a bf16 pair."""
  if batch % SUBLANES == 0:
    return None
  sublane = lax.broadcasted_iota(jnp.int32, TILE, 0)
  image = (sublane & 3) * 2 + first
  return [image < batch, image + 1 < batch]


def masked(registers: Registers, masks: list[jax.Array] | None) -> Registers:
  """Replace sublanes without an image, whose content is arbitrary, by zeros."""
  if masks is None:
    return registers
  return [
    jnp.where(mask, register, 0.0)
    for register, mask in zip(registers, masks, strict=True)
  ]
