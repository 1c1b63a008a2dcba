"""Arrays laid out so that TPUs read matrices without a copy.

XLA:TPU stores a float32 matrix in tiles of 8 rows and 128 columns, each of them
a register. Here an array is rows of 128 lanes, one tile after the other. Those
are the same bytes, so XLA:TPU turns the reshapes and transposes of `from_rows`
into a bitcast.
"""

import math

import jax
import jax.numpy as jnp

LANES = 128
SUBLANES = 8  # of a float32 register
_REGISTER = SUBLANES * LANES

Shape = tuple[int, ...]


def rows_of(shape: Shape) -> int:
  """Count the rows of an array: whole registers of 8 rows.

  >>> rows_of((7,)), rows_of((3, 3, 256)), rows_of((256, 8))
  (8, 32, 16)
  """
  if len(shape) < 2 or 0 in shape:
    return -(-math.prod(shape) // _REGISTER) * SUBLANES
  return math.prod(_tiles(_stored(shape))) * SUBLANES


def to_rows(leaf: jax.Array) -> jax.Array:
  """Lay an array out as `[rows_of(shape), 128]`, padded with zeros."""
  rows = rows_of(leaf.shape)
  if leaf.ndim < 2 or leaf.size == 0:
    flat = jnp.pad(leaf.reshape(-1), (0, rows * LANES - leaf.size))
    return flat.reshape(rows, LANES)
  matrix = to_matrix(leaf)
  height, width = matrix.shape
  down, across = _tiles((height, width))
  spare = (down * SUBLANES - height, across * LANES - width)
  matrix = jnp.pad(matrix, tuple((0, n) for n in spare))
  tiles = matrix.reshape(down, SUBLANES, across, LANES).swapaxes(1, 2)
  return tiles.reshape(rows, LANES)


def to_matrix(leaf: jax.Array) -> jax.Array:
  """Reshape an array of two axes or more to the matrix that is tiled."""
  matrix = leaf.reshape(-1, leaf.shape[-1])
  return matrix.T if _is_transposed(leaf.shape) else matrix


def from_rows(rows: jax.Array, shape: Shape) -> jax.Array:
  """Restore an array of this shape from its rows, `[rows_of(shape), 128]`."""
  if len(shape) < 2 or 0 in shape:
    return rows.reshape(-1)[: math.prod(shape)].reshape(shape)
  height, width = _stored(shape)
  down, across = _tiles((height, width))
  tiles = rows.reshape(down, across, SUBLANES, LANES).swapaxes(1, 2)
  matrix = tiles.reshape(down * SUBLANES, across * LANES)[:height, :width]
  if _is_transposed(shape):
    matrix = matrix.T
  return matrix.reshape(shape)


def _matrix(shape: Shape) -> tuple[int, int]:
  return math.prod(shape[:-1]), shape[-1]


def _stored(shape: Shape) -> tuple[int, int]:
  height, width = _matrix(shape)
  return (width, height) if _is_transposed(shape) else (height, width)


def _is_transposed(shape: Shape) -> bool:
  """Return True if transposing the matrix saves tiles, and so padding."""
  height, width = _matrix(shape)
  upright, transposed = _tiles((height, width)), _tiles((width, height))
  return math.prod(transposed) < math.prod(upright)


def _tiles(matrix: tuple[int, int]) -> tuple[int, int]:
  height, width = matrix
  return -(-height // SUBLANES), -(-width // LANES)
