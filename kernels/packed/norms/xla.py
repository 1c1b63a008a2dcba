"""Norms of leaves in plain JAX."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ..leaf_map import LeafMap
from ..leaf_rows import LANES, SUBLANES
from ..packing import Shard
from .scaled_norm import norm_of_sums, scaled_squares


def norms(
  buffers: Sequence[jax.Array], leaf_map: LeafMap, shard: Shard | None
) -> jax.Array:
  """Compute the norm of each leaf of several buffers.

  Args:
    buffers: Whole buffers or shards, float32 `[rows, 128]` each.
    leaf_map: Map from registers to leaves.
    shard: Shard of this device; None for whole buffers.

  Returns:
    Norms, float32 `[buffers, leaves]`.
  """
  return norm_of_sums(sum_over_shards(sums(buffers, leaf_map), shard))


def sums(
  buffers: Sequence[jax.Array],
  leaf_map: LeafMap,
  decay: jax.Array | None = None,
) -> jax.Array:
  """Compute each leaf's sums of squares at the three scales.

  Args:
    buffers: Whole buffers or shards, float32 `[rows, 128]` each.
    leaf_map: Map from registers to leaves.
    decay: Multiple of the first buffer that is added to the last one before
      squaring, float32 scalar; None adds nothing.

  Returns:
    Sums, float32 `[3, buffers, leaves]`.
  """
  if decay is not None:
    *others, last = buffers
    buffers = [*others, last + decay * others[0]]
  return jnp.stack([_sums(x, leaf_map) for x in buffers], axis=1)


def sum_over_shards(sums: jax.Array, shard: Shard | None) -> jax.Array:
  """Add the sums of all shards."""
  return sums if shard is None else lax.psum(sums, shard.axis_names)


def _sums(buffer: jax.Array, leaf_map: LeafMap) -> jax.Array:
  """Compute the sums of one buffer, `[3, leaves]`."""
  registers = buffer.reshape(-1, SUBLANES, LANES)
  sums = [_register_sums(x) for x in scaled_squares(registers)]
  by_leaf = jax.ops.segment_sum(
    jnp.stack(sums, axis=1), leaf_map.leaf_of_register, leaf_map.leaves + 1
  )
  return by_leaf[:-1].T


def _register_sums(x: jax.Array) -> jax.Array:
  """Sum each register, `[registers, 8, 128]` to `[registers]`.

  XLA:CPU vectorizes the addition of halves, but not a reduction fused with its
  input, which is 2.5 times slower for B0's norms.
  """
  half = SUBLANES
  while half := half // 2:
    x = x[:, :half] + x[:, half:]
  return jnp.sum(x[:, 0], axis=1)
