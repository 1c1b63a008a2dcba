"""bfloat16 columns in pairs, for chips that convert bfloat16 through memory.

To convert 8 images of bfloat16, TPU v3 stores each register to memory and loads
it back, one register after the other. This module converts two columns at a
time in registers instead. A ref of 32-bit words holds images 2s and 2s + 1 of a
block of 8 in word s, so that a shift and a mask unpack them. The 4 words of one
column and the 4 words of the next share a register. A pair of columns becomes

  even: images 0, 2, 4, 6 of the first column, then of the second
  odd: images 1, 3, 5, 7 of the first column, then of the second

Stores of half registers turn a pair into columns of images 0, 2, 4, 6, 1, 3, 5,
7. Such loads and stores use slots of the bundle that are free otherwise.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

IMAGES = 8  # of a block, so that the words of two columns are neighbours
_WORDS = IMAGES // 2

Pair = list[jax.Array]
"""Registers `even` and `odd` of two columns."""


def load_pairs(ref, row, first, size: int) -> list[Pair]:
  """Load columns `first` to `first + size` of a bfloat16 ref, in pairs."""
  words = _flat_rows(ref.bitcast(jnp.uint32))
  pairs = []
  for column in _pair_starts(size):
    word = words[row, pl.ds((first + column) * _WORDS, IMAGES)]
    halves = word << 16, word & jnp.uint32(0xFFFF0000)
    pairs.append([lax.bitcast_convert_type(h, jnp.float32) for h in halves])
  return pairs


def write_pairs(buffer, row, first, size: int, pairs: list[Pair]) -> None:
  """Write the pairs of `load_pairs` to a float32 buffer, as columns."""
  flat = _flat_rows(buffer)
  for column, pair in zip(_pair_starts(size), pairs, strict=True):
    for half in (0, 1):
      for odd, register in enumerate(pair):
        start = (first + column + half) * IMAGES + odd * _WORDS
        flat[row, pl.ds(start, _WORDS)] = register[
          half * _WORDS : (half + 1) * _WORDS
        ]


def store_columns(
  ref, row, first, columns: list[jax.Array], unpack_scratch
) -> None:
  """Round columns to bfloat16 and store them.

  Args:
    ref: Block of an activation, bfloat16.
    row: Row of the block.
    first: First column.
    columns: Register of each column, images 0, 2, 4, 6, 1, 3, 5, 7.
    unpack_scratch: Float32 buffer of a row with one more column.
  """
  for column, register in enumerate(columns):
    unpack_scratch[0, column, 0] = register
  flat = _flat_rows(unpack_scratch)
  words = _flat_rows(ref.bitcast(jnp.uint32))
  for column, register in enumerate(columns):
    # Loading from the middle moves the odd images to the place of the even.
    odd = flat[0, pl.ds(column * IMAGES + _WORDS, IMAGES)]
    word = pltpu.pack_elementwise([register, odd], packed_dtype=jnp.bfloat16)
    start = (first + column) * _WORDS
    words[row, pl.ds(start, _WORDS)] = word[:_WORDS]


def _flat_rows(ref):
  """View a ref with the columns of a row one after the other in sublanes."""
  rows, columns, *images, lanes = ref.shape
  return ref.reshape(rows, columns * math.prod(images), lanes)


def _pair_starts(size: int) -> list[int]:
  """List the first columns of the pairs that cover `size` columns.

  If size is odd, the last column pairs with the column before it. For one
  column this is column -1.
  """
  return [*range(0, size - 1, 2), *([size - 2] if size % 2 else [])]
