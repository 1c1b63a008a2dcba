"""bfloat16 on chips that unpack and pack a register only through memory.

TPU v3 takes such a round trip, one register after the other, for each
conversion of 8 images. Read as 32-bit words, images 2s and 2s + 1 of a block
of 8 are the halves of word s: a shift and a mask unpack them, and two columns,
of 4 words each, share a register. So a pair of columns is loaded as

  even: images 0, 2, 4, 6 of one column, then those of the next
  odd: images 1, 3, 5, 7 of one column, then those of the next

and stores of half registers turn it into columns: images 0, 2, 4, 6, 1, 3, 5,
7 of one. Loads and stores of half registers cost a slot that has room.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

IMAGES = 8  # of a block, so that the words of two columns are neighbours
_WORDS = IMAGES // 2

Pair = list[jax.Array]  # even and odd


def load_pairs(ref, row, first, size: int) -> list[Pair]:
  """Columns `first` to `first + size` of a bfloat16 ref, two at a time."""
  words = _rows(ref.bitcast(jnp.uint32))
  pairs = []
  for column in _firsts(size):
    word = words[row, pl.ds((first + column) * _WORDS, IMAGES)]
    halves = word << 16, word & jnp.uint32(0xFFFF0000)
    pairs.append([lax.bitcast_convert_type(h, jnp.float32) for h in halves])
  return pairs


def write_pairs(buffer, row, first, size: int, pairs: list[Pair]) -> None:
  """Writes what `load_pairs` returns to a float32 buffer, as columns."""
  to = _rows(buffer)
  for column, pair in zip(_firsts(size), pairs, strict=True):
    for half in (0, 1):
      for odd, register in enumerate(pair):
        start = (first + column + half) * IMAGES + odd * _WORDS
        part = register[half * _WORDS : (half + 1) * _WORDS]
        to[row, pl.ds(start, _WORDS)] = part


def store_columns(ref, row, first, columns: list[jax.Array], stage) -> None:
  """Rounds columns to bfloat16; `stage` is a buffer with one more column."""
  for column, register in enumerate(columns):
    stage[0, column, 0] = register
  staged, words = _rows(stage), _rows(ref.bitcast(jnp.uint32))
  for column, register in enumerate(columns):
    # The odd images, moved to where the even ones are.
    odd = staged[0, pl.ds(column * IMAGES + _WORDS, IMAGES)]
    word = pltpu.pack_elementwise([register, odd], packed_dtype=jnp.bfloat16)
    start = (first + column) * _WORDS
    words[row, pl.ds(start, _WORDS)] = word[:_WORDS]


def _rows(ref):
  """A ref with a row's columns one after the other in the sublanes."""
  rows, columns, *images, lanes = ref.shape
  return ref.reshape(rows, columns * math.prod(images), lanes)


def _firsts(size: int) -> list[int]:
  """First columns of the pairs that cover `size` columns.

  Of an odd number the last is paired with the column before it, which may be
  one before all of them.
  """
  return [*range(0, size - 1, 2), *([size - 2] if size % 2 else [])]
