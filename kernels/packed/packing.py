"""A tree of arrays as one buffer, a leaf after another."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import KeyPath, keystr

from ..selection.dispatch import Requested, dispatch
from ..selection.for_tpu import for_tpu
from .leaf_rows import LANES, SUBLANES, from_rows, rows_of
from .pack import tpu as pallas_tpu
from .pack import xla

PyTree = Any

_SHARD = 16  # rows of a bfloat16 register


@dataclass(frozen=True, repr=False)
class Packing:
  """Where each leaf of a tree lies in a buffer `[rows, 128]`.

  A leaf is whole registers of 8 rows, so that a register belongs to one leaf;
  a matrix lies there as on the TPU (see `leaf_rows`). What a leaf's registers
  and the buffer have too much is 0.

  Attributes:
    structure: of the tree.
    shapes: of its leaves.
    rows: of the buffer; a multiple of 16 for each of its shards, so that one
      is whole registers in bfloat16 too.

  >>> tree = {"kernel": jnp.ones((3, 100)), "bias": jnp.ones(7)}
  >>> packing = pack_like(tree, shards=2)
  >>> packing.pack(tree).shape, packing.leaf_rows
  ((32, 128), (8, 8))
  >>> jax.tree.map(jnp.shape, packing.unpack(packing.pack(tree)))
  {'bias': (7,), 'kernel': (3, 100)}
  """

  structure: jax.tree_util.PyTreeDef
  shapes: tuple[tuple[int, ...], ...]
  rows: int

  def __repr__(self) -> str:
    return f"Packing({len(self.shapes)} leaves in {self.rows} rows)"

  @property
  def leaf_rows(self) -> tuple[int, ...]:
    """How many rows each leaf has, in the order of the tree's leaves."""
    return tuple(map(rows_of, self.shapes))

  @property
  def paths(self) -> tuple[KeyPath, ...]:
    """Of the leaves, in their order."""
    tree = jax.tree.unflatten(self.structure, range(len(self.shapes)))
    return tuple(path for path, _ in jax.tree.leaves_with_path(tree))

  @functools.cached_property
  def leaf_of_register(self) -> np.ndarray:
    """`[rows / 8]` int32; what belongs to no leaf counts to the last."""
    registers = np.array(self.leaf_rows) // SUBLANES
    registers[-1] += self.rows // SUBLANES - registers.sum()
    return np.repeat(np.arange(len(registers), dtype=np.int32), registers)

  def pack(self, tree: PyTree, implementation: Requested = "xla") -> jax.Array:
    """The tree's leaves in float32, `[rows, 128]`.

    Args:
      tree: of arrays.
      implementation: "xla", which can be partitioned; "pallas_tpu", which
        inside `shard_map` or on one device is several times faster; several in
        order; or None for the best there is.

    Raises:
      ValueError: the tree is not one of this structure and these shapes.
    """
    leaves, structure = jax.tree.flatten(tree)
    shapes = tuple(map(jnp.shape, leaves))
    if structure != self.structure or shapes != self.shapes:
      raise ValueError(
        f"the tree of {len(shapes)} leaves is not the one of "
        f"{len(self.shapes)} that the packing was made for"
        + _first_difference(shapes, self.shapes)
      )
    return dispatch(
      "pack",
      {"xla": xla.pack, "pallas_tpu": pallas_tpu.pack},
      for_tpu(implementation),
      [leaf.astype(jnp.float32) for leaf in leaves],
      self.rows,
    )

  def unpack(self, buffer: jax.Array) -> PyTree:
    """The tree whose leaves are in `buffer` `[rows, 128]`, in its dtype.

    Raises:
      ValueError: the buffer has another shape.
    """
    if buffer.shape != (self.rows, LANES):
      raise ValueError(
        f"the packing has a buffer ({self.rows}, {LANES}), got {buffer.shape}"
      )
    return jax.tree.unflatten(self.structure, list(self._leaves(buffer)))

  def _leaves(self, buffer: jax.Array) -> Iterator[jax.Array]:
    start = 0
    for shape, rows in zip(self.shapes, self.leaf_rows, strict=True):
      yield from_rows(buffer[start : start + rows], shape)
      start += rows


def pack_like(tree: PyTree, shards: int = 1) -> Packing:
  """The packing for trees like this one, in a buffer of equal shards.

  Args:
    tree: of arrays, or of `jax.ShapeDtypeStruct`, floating.
    shards: number of shards that the rows are to be divided into.

  Raises:
    ValueError: a leaf is not floating, or there is none.
  """
  for path, leaf in jax.tree.leaves_with_path(tree):
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
      raise ValueError(
        f"only floating arrays are packed, {keystr(path)} is {leaf.dtype}"
      )
  leaves, structure = jax.tree.flatten(tree)
  if not leaves:
    raise ValueError("the tree to pack has no leaves")
  shapes = tuple(leaf.shape for leaf in leaves)
  rows, multiple = sum(map(rows_of, shapes)), _SHARD * shards
  return Packing(structure, shapes, -(-rows // multiple) * multiple)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Packed:
  """A packed tree, or one shard of it; a pytree whose leaf is the buffer.

  Attributes:
    buffer: float32 `[packing.rows, 128]`; of a shard, as many rows as all
      have.
    packing: where the leaves are.

  >>> packed = Packed.of({"kernel": jnp.ones((3, 100))})
  >>> jax.tree.map(jnp.shape, packed.unpack())
  {'kernel': (3, 100)}
  """

  buffer: jax.Array
  packing: Packing = field(metadata={"static": True})

  @classmethod
  def of(cls, tree: PyTree) -> Self:
    """The whole tree, packed."""
    packing = pack_like(tree)
    return cls(packing.pack(tree), packing)

  def unpack(self) -> PyTree:
    """The tree; of a whole buffer only."""
    return self.packing.unpack(self.buffer)


class Shard(NamedTuple):
  """Which shard of packed buffers this device has, inside `shard_map`.

  Attributes:
    number: int32 scalar, which of the equal shards, by their rows.
    axis_names: the mesh axes that the shards are spread over, all of them.
  """

  number: jax.Array
  axis_names: tuple[str, ...]


def rows_here(
  table: np.ndarray, packed: Packed, shard: Shard | None
) -> jax.Array:
  """An entry for each register, `[rows / 8]`, as `[rows, 1]` of this shard.

  For tables that are known when tracing; `LeafMap.per_row` looks values up.
  """
  entries = jnp.asarray(table)
  if shard is not None:
    size = packed.buffer.shape[0] // SUBLANES
    entries = lax.dynamic_slice_in_dim(entries, shard.number * size, size)
  return jnp.repeat(entries, SUBLANES)[:, None]


def _first_difference(ours, expected) -> str:
  for i, (got, want) in enumerate(zip(ours, expected, strict=False)):
    if got != want:
      return f"; leaf {i} is {got} instead of {want}"
  return ""
