"""Which leaf each register of a shard belongs to."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .leaf_rows import SUBLANES
from .packing import Packed, Packing, Shard


class Segments(NamedTuple):
  """The leaves of a shard; of a whole buffer where it is the only one.

  A leaf's slot is its place among those that the shard has. Behind the slots is
  one more, for the registers of leaves that nobody asked for.

  Attributes:
    leaves: how many were asked for.
    slots: how many of them a shard has at most.
    first: int32 scalar, the first that this shard has.
    codes: int32 `[registers]`, twice the slot of each, and 1 more where the
      register before it is of the same leaf.
  """

  leaves: int
  slots: int
  first: jax.Array
  codes: jax.Array

  @property
  def slot_of_register(self) -> jax.Array:
    """int32 `[registers]`."""
    return self.codes >> 1

  def to_leaves(self, slots: jax.Array) -> jax.Array:
    """`[..., slots]` of this shard among the `[..., leaves]` of all, or 0."""
    start = [jnp.zeros_like(self.first)] * (slots.ndim - 1) + [self.first]
    size = self.leaves + self.slots
    room = jnp.zeros((*slots.shape[:-1], size), slots.dtype)
    return lax.dynamic_update_slice(room, slots, start)[..., : self.leaves]

  def to_slots(self, leaves: jax.Array) -> jax.Array:
    """The part of `[leaves]` that this shard has, and 0, `[slots + 1]`."""
    padded = jnp.pad(leaves, (0, self.slots + 1))
    return lax.dynamic_slice_in_dim(padded, self.first, self.slots + 1)

  def per_row(self, leaves: jax.Array) -> jax.Array:
    """`[leaves]` for each row of this shard, `[rows, 1]`."""
    registers = self.to_slots(leaves)[self.slot_of_register]
    return jnp.repeat(registers, SUBLANES)[:, None]


def segments_of(
  packed: Packed, shard: Shard | None, wanted: Sequence[bool] | None = None
) -> Segments:
  """The segments of what this device has.

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
  first, slots, codes = _tables(packing, shards, np.array(wanted))
  number = 0 if shard is None else shard.number
  return Segments(
    leaves=sum(wanted),
    slots=slots,
    first=jnp.asarray(first)[number],
    codes=jnp.asarray(codes)[number],
  )


def _tables(
  packing: Packing, shards: int, wanted: np.ndarray
) -> tuple[np.ndarray, int, np.ndarray]:
  """First leaf `[shards]`, most leaves of a shard, codes `[shards, ...]`."""
  leaf = packing.leaf_of_register.reshape(shards, -1)
  goes_on = np.zeros_like(leaf)
  goes_on[:, 1:] = leaf[:, 1:] == leaf[:, :-1]
  asked = wanted[leaf]
  place = (np.cumsum(wanted, dtype=np.int32) - 1)[leaf]
  first = np.min(place, axis=1, where=asked, initial=wanted.sum())
  last = np.max(place, axis=1, where=asked, initial=-1)
  slots = max(int((last - first).max()) + 1, 0)
  slot = np.where(asked, place - first[:, None], slots)
  return first, slots, (2 * slot + goes_on).astype(np.int32)
