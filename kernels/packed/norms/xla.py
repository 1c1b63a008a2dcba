"""The norms of leaves in plain JAX."""

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
  """The norm of each leaf of several buffers, float32 `[buffers, leaves]`.

  Args:
    buffers: float32 `[rows, 128]`, whole or shards.
    leaf_map: of them.
    shard: which one, where they are shards.
  """
  return norm_of_sums(sum_over_shards(sums(buffers, leaf_map), shard))


def sums(
  buffers: Sequence[jax.Array],
  leaf_map: LeafMap,
  decay: jax.Array | None = None,
) -> jax.Array:
  """The sums of squares at each scale, float32 `[3, buffers, leaves]`.

  Args:
    buffers: float32 `[rows, 128]`, whole or shards.
    leaf_map: of them.
    decay: float32 scalar; the last buffer's sums are those of it plus so much
      of the first.
  """
  if decay is not None:
    *others, last = buffers
    buffers = [*others, last + decay * others[0]]
  return jnp.stack([_sums(x, leaf_map) for x in buffers], axis=1)


def sum_over_shards(sums: jax.Array, shard: Shard | None) -> jax.Array:
  """The sums over all shards."""
  return sums if shard is None else lax.psum(sums, shard.axis_names)


def _sums(buffer: jax.Array, leaf_map: LeafMap) -> jax.Array:
  """The sums of squares at each scale, `[3, leaves]`."""
  registers = buffer.reshape(-1, SUBLANES, LANES)
  sums = [_register_sums(x) for x in scaled_squares(registers)]
  by_leaf = jax.ops.segment_sum(
    jnp.stack(sums, axis=1), leaf_map.leaf_of_register, leaf_map.leaves + 1
  )
  return by_leaf[:-1].T


def _register_sums(x: jax.Array) -> jax.Array:
  """The sum of each register, `[registers]`.

  The halves are added first, which XLA makes vector code of on a CPU; of a
  reduction fused with what it reduces it does not. B0's norms: 88 to 35 ms.
  """
  half = SUBLANES
  while half := half // 2:
    x = x[:, :half] + x[:, half:]
  return jnp.sum(x[:, 0], axis=1)
