"""Leaves written into a buffer in plain JAX."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ..leaf_rows import LANES, to_rows


def pack(leaves: Sequence[jax.Array], rows: int) -> jax.Array:
  """The leaves one after the other, float32 `[rows, 128]`, and zeros.

  Args:
    leaves: float32, of any shapes; see `leaf_rows` for where a value goes.
    rows: at least those that the leaves have together.
  """
  blocks = list(map(to_rows, leaves))
  spare = rows - sum(block.shape[0] for block in blocks)
  blocks.append(jnp.zeros((spare, LANES), jnp.float32))
  # Of a concatenation XLA for v3 makes one more copy.
  buffer, start = lax.empty((rows, LANES), jnp.float32), 0
  for block in blocks:
    buffer = write(buffer, block, start)
    start += block.shape[0]
  return buffer


def write(buffer: jax.Array, block: jax.Array, start: int) -> jax.Array:
  """The buffer with these rows, in place where nobody else has it."""
  return lax.dynamic_update_slice(buffer, block, (start, 0))
