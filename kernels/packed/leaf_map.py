"""Which leaf each register of a shard belongs to."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .packing import Packed, Packing, Shard


class LeafMap(NamedTuple):
  """The leaves of a shard; of a whole buffer where it is the only one.

  A leaf's slot is its place among those that the shard has. Behind the slots is
  one more, for the registers of leaves that nobody asked for.

  Attributes:
    leaves: how many were asked for.
    slots: how many of them a shard has at most.
    number: int32 scalar, which shard it is.
    firsts: int32 `[shards]`, the first leaf of each.
    codes: int32 `[shards, registers]`, twice the slot of each, and 1 more where
      the register before it is in the shard and of the same leaf.
  """

  leaves: int
  slots: int
  number: jax.Array | int
  firsts: np.ndarray
  codes: np.ndarray

  @property
  def leaf_of_register(self) -> jax.Array:
    """Of this shard's, int32 `[registers]`: `leaves` for what nobody wants."""
    leaf = np.where(
      self.codes >> 1 < self.slots,
      (self.codes >> 1) + self.firsts[:, None],
      self.leaves,
    )
    return lax.dynamic_index_in_dim(
      jnp.asarray(leaf), self.number, keepdims=False
    )


def make_leaf_map(
  packed: Packed, shard: Shard | None, wanted: Sequence[bool] | None = None
) -> LeafMap:
  """The leaf_map of what this device has.

  Args:
    packed: the tree, or this device's shard of it.
    shard: which one.
    wanted: of each leaf, whether to ask for it; None asks for all.

  Raises:
    ValueError: the buffer is not whole and no shard is given, or is not one of
      equal shards.
  """
  packing, rows = packed.packing, packed.buffer.shape[0]
  shards = 1 if shard is None else lax.axis_size(shard.axis_names)
  if rows * shards != packing.rows:
    raise ValueError(
      f"the packing has {packing.rows} rows, the buffer {rows} on each of "
      f"{shards} devices"
      + ("; of a shard, say which: shard=" if shard is None else "")
    )
  if wanted is None:
    wanted = [True] * len(packing.shapes)
  number = 0 if shard is None else shard.number
  tables = _tables(packing, shards, np.array(wanted))
  return LeafMap(sum(wanted), number=number, **tables)


def _tables(
  packing: Packing, shards: int, wanted: np.ndarray
) -> dict[str, Any]:
  """What `LeafMap` has of all shards."""
  leaf = packing.leaf_of_register.reshape(shards, -1)
  goes_on = np.zeros_like(leaf)
  goes_on[:, 1:] = leaf[:, 1:] == leaf[:, :-1]
  asked = wanted[leaf]
  place = (np.cumsum(wanted, dtype=np.int32) - 1)[leaf]
  firsts = np.min(place, axis=1, where=asked, initial=wanted.sum())
  lasts = np.max(place, axis=1, where=asked, initial=-1)
  slots = max(int((lasts - firsts).max()) + 1, 0)
  slot = np.where(asked, place - firsts[:, None], slots)
  codes = (2 * slot + goes_on).astype(np.int32)
  return {"slots": slots, "firsts": firsts.astype(np.int32), "codes": codes}
