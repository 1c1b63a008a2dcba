"""The leaf that each register of a packed buffer belongs to."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .packing import Packed, Packing, Shard


class LeafMap(NamedTuple):
  """Map from the registers of each shard to the leaves of a tree.

  A whole buffer is one shard. Leaves may be left out of the map. The slot of a
  leaf is its number among the mapped leaves of the shard; registers of leaves
  that are left out have the slot `slots`.

  Attributes:
    leaves: Number of mapped leaves.
    slots: Largest number of mapped leaves in a shard.
    number: Number of this device's shard, int32 scalar.
    firsts: First mapped leaf of each shard, int32 `[shards]`.
    codes: Slot and continuation of each register (see `decode`), int32
      `[shards, registers]`.
  """

  leaves: int
  slots: int
  number: jax.Array | int
  firsts: np.ndarray
  codes: np.ndarray

  @property
  def leaf_of_register(self) -> jax.Array:
    """Mapped leaf of each register of this shard, int32 `[registers]`.

    Registers of leaves that are left out have the number `leaves`.
    """
    slot, _ = decode(self.codes)
    leaf = np.where(slot < self.slots, slot + self.firsts[:, None], self.leaves)
    return lax.dynamic_index_in_dim(
      jnp.asarray(leaf), self.number, keepdims=False
    )


def encode(slot: Any, continues: Any) -> Any:
  """Pack a register's slot and continuation into one int32.

  One word per register, so that scalar memory holds those of a whole block.

  Args:
    slot: Slot of the register's leaf.
    continues: True if the register before it is in the same shard and leaf.
  """
  return 2 * slot + continues


def decode(code: Any) -> tuple[Any, Any]:
  """Return the slot and the continuation that `encode` packed.

  >>> decode(encode(5, True)), decode(encode(5, False))
  ((5, True), (5, False))
  """
  return code >> 1, (code & 1) == 1


def make_leaf_map(
  packed: Packed, shard: Shard | None, mapped: Sequence[bool] | None = None
) -> LeafMap:
  """Map the registers of this device to leaves.

  Args:
    packed: Tree, or this device's shard of it.
    shard: Shard of this device; None for a whole tree.
    mapped: True for each leaf to map, False to leave it out; None maps all.

  Raises:
    ValueError: The buffer is not whole and no shard is given, or the shards
      are not equal.
  """
  packing, rows = packed.packing, packed.buffer.shape[0]
  shards = 1 if shard is None else lax.axis_size(shard.axis_names)
  if rows * shards != packing.rows:
    raise ValueError(
      f"the packing has {packing.rows} rows, the buffer {rows} on each of "
      f"{shards} devices"
      + ("; pass shard= for a shard of it" if shard is None else "")
    )
  if mapped is None:
    mapped = [True] * len(packing.shapes)
  number = 0 if shard is None else shard.number
  tables = _tables(packing, shards, np.array(mapped))
  return LeafMap(sum(mapped), number=number, **tables)


def _tables(
  packing: Packing, shards: int, mapped: np.ndarray
) -> dict[str, Any]:
  """Compute the fields of `LeafMap` that cover all shards."""
  leaf = packing.leaf_of_register.reshape(shards, -1)
  continues = np.zeros_like(leaf)
  continues[:, 1:] = leaf[:, 1:] == leaf[:, :-1]
  is_mapped = mapped[leaf]
  number = (np.cumsum(mapped, dtype=np.int32) - 1)[leaf]
  firsts = np.min(number, axis=1, where=is_mapped, initial=mapped.sum())
  lasts = np.max(number, axis=1, where=is_mapped, initial=-1)
  slots = max(int((lasts - firsts).max()) + 1, 0)
  slot = np.where(is_mapped, number - firsts[:, None], slots)
  codes = encode(slot, continues).astype(np.int32)
  return {"slots": slots, "firsts": firsts.astype(np.int32), "codes": codes}
