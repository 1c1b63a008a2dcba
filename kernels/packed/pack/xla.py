"""Packing in plain JAX."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ..leaf_rows import LANES, to_rows


def pack(leaves: Sequence[jax.Array], rows: int) -> jax.Array:
  """Write the leaves one after the other, and zeros behind them.

  Args:
    leaves: Leaves of any shapes, float32; `leaf_rows` has their layout.
    rows: Rows of the buffer, at least the sum of the leaves' rows.

  Returns:
    Buffer, float32 `[rows, 128]`.
  """
  blocks = list(map(to_rows, leaves))
  spare = rows - sum(block.shape[0] for block in blocks)
  blocks.append(jnp.zeros((spare, LANES), jnp.float32))
  # XLA for v3 makes one more copy of a concatenation.
  buffer, start = lax.empty((rows, LANES), jnp.float32), 0
  for block in blocks:
    buffer = write(buffer, block, start)
    start += block.shape[0]
  return buffer


def write(buffer: jax.Array, block: jax.Array, start: int) -> jax.Array:
  """Write a block of rows to the buffer; XLA does so in place if it can."""
  return lax.dynamic_update_slice(buffer, block, (start, 0))
