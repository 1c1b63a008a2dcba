"""Trees of arrays in one buffer, one leaf after the other."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import KeyPath, keystr

from ..selection.requested import Requested
from ..selection.selection import Selection, run, select
from .leaf_rows import LANES, SUBLANES, from_rows, rows_of
from .pack import tpu as pallas_tpu
from .pack import xla
from .pack.selection import POLICY

PyTree = Any

_SHARD = 16  # rows of a bfloat16 register


@dataclass(frozen=True, repr=False)
class Packing:
  """Position of each leaf of a tree in a buffer `[rows, 128]`.

  A leaf takes whole registers of 8 rows, so that each register belongs to one
  leaf. A matrix has the same layout as on a TPU (see `leaf_rows`). Zeros fill
  the rest of a leaf's last register, and of the buffer.

  Attributes:
    structure: Structure of the tree.
    shapes: Shapes of the leaves.
    rows: Rows of the buffer. Each shard has a multiple of 16 rows, which are
      whole registers in bfloat16 too.

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
    """Rows of each leaf, in the order of the tree's leaves."""
    return tuple(map(rows_of, self.shapes))

  @property
  def paths(self) -> tuple[KeyPath, ...]:
    """Key paths of the leaves, in their order."""
    tree = jax.tree.unflatten(self.structure, range(len(self.shapes)))
    return tuple(path for path, _ in jax.tree.leaves_with_path(tree))

  @functools.cached_property
  def leaf_of_register(self) -> np.ndarray:
    """Leaf of each register, int32 `[rows / 8]`.

    Registers behind the last leaf count as part of it.
    """
    registers = np.array(self.leaf_rows) // SUBLANES
    registers[-1] += self.rows // SUBLANES - registers.sum()
    return np.repeat(np.arange(len(registers), dtype=np.int32), registers)

  def pack(self, tree: PyTree, implementation: Requested = "xla") -> jax.Array:
    """Pack a tree's leaves into a float32 buffer, `[rows, 128]`.

    Args:
      tree: Tree of arrays.
      implementation: "xla", which XLA can partition; "pallas_tpu", which is
        several times faster inside `shard_map` or on one device; a sequence of
        names to try in order; or None to choose for the platform.

    Raises:
      ValueError: The tree has another structure or other shapes.
    """
    leaves = self._leaves_of(tree)
    selection = select(POLICY, implementation)
    implementations = {
      "xla": functools.partial(xla.pack, rows=self.rows),
      "pallas_tpu": functools.partial(pallas_tpu.pack, rows=self.rows),
    }
    return run(
      selection, implementations, [leaf.astype(jnp.float32) for leaf in leaves]
    )

  def describe_pack(self, tree: PyTree, implementation: Requested) -> Selection:
    """Select as `pack` does, for `podscale.kernels.describe`."""
    self._leaves_of(tree)
    return select(POLICY, implementation)

  def _leaves_of(self, tree: PyTree) -> list[jax.Array]:
    """Flatten a tree after checking its structure and shapes."""
    leaves, structure = jax.tree.flatten(tree)
    shapes = tuple(map(jnp.shape, leaves))
    if structure != self.structure or shapes != self.shapes:
      raise ValueError(
        f"the tree has {len(shapes)} leaves, but the packing was made for a "
        f"tree of {len(self.shapes)}"
        + _first_difference(shapes, self.shapes)
        + "; call pack_like for this tree"
      )
    return leaves

  def unpack(self, buffer: jax.Array) -> PyTree:
    """Unpack the tree from a buffer `[rows, 128]`, in the buffer's dtype.

    Raises:
      ValueError: The buffer has another shape.
    """
    if buffer.shape != (self.rows, LANES):
      raise ValueError(
        f"the buffer must have the packing's shape ({self.rows}, {LANES}), got "
        f"{buffer.shape}"
      )
    return jax.tree.unflatten(self.structure, list(self._leaves(buffer)))

  def _leaves(self, buffer: jax.Array) -> Iterator[jax.Array]:
    start = 0
    for shape, rows in zip(self.shapes, self.leaf_rows, strict=True):
      yield from_rows(buffer[start : start + rows], shape)
      start += rows


def pack_like(tree: PyTree, shards: int = 1) -> Packing:
  """Make the packing of trees like this one, in a buffer of equal shards.

  Args:
    tree: Tree of floating-point arrays or `jax.ShapeDtypeStruct`.
    shards: Number of shards that divide the rows equally.

  Raises:
    ValueError: A leaf is not floating-point, or the tree has no leaves.
  """
  for path, leaf in jax.tree.leaves_with_path(tree):
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
      raise ValueError(
        f"the leaf at {keystr(path)} is {leaf.dtype}; only floating-point "
        "leaves can be packed"
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
  """Packed tree, or one shard of it; a pytree whose only leaf is the buffer.

  Attributes:
    buffer: Values of the leaves, float32 `[packing.rows, 128]`; in a shard,
      `[packing.rows / shards, 128]`.
    packing: Position of each leaf.

  >>> packed = Packed.of({"kernel": jnp.ones((3, 100))})
  >>> jax.tree.map(jnp.shape, packed.unpack())
  {'kernel': (3, 100)}
  """

  buffer: jax.Array
  packing: Packing = field(metadata={"static": True})

  @classmethod
  def of(cls, tree: PyTree) -> Self:
    """Pack a whole tree."""
    packing = pack_like(tree)
    return cls(packing.pack(tree), packing)

  def unpack(self) -> PyTree:
    """Unpack the tree from a whole buffer."""
    return self.packing.unpack(self.buffer)


class Shard(NamedTuple):
  """This device's shard of packed buffers, inside `shard_map`.

  Attributes:
    number: Number of the shard in the order of the rows, int32 scalar.
    axis_names: All mesh axes that the shards are spread over.
  """

  number: jax.Array
  axis_names: tuple[str, ...]


def rows_here(
  table: np.ndarray, packed: Packed, shard: Shard | None
) -> jax.Array:
  """Spread a table with an entry per register over this shard's rows.

  Args:
    table: Entries, `[packing.rows / 8]`.
    packed: Tree, or this device's shard of it.
    shard: Shard of this device; None for a whole tree.

  Returns:
    Entry of each row, `[rows, 1]`.
  """
  entries = jnp.asarray(table)
  if shard is not None:
    size = packed.buffer.shape[0] // SUBLANES
    entries = lax.dynamic_slice_in_dim(entries, shard.number * size, size)
  return jnp.repeat(entries, SUBLANES)[:, None]


def _first_difference(ours, expected) -> str:
  for i, (got, want) in enumerate(zip(ours, expected, strict=False)):
    if got != want:
      return f"; leaf {i} has shape {got} instead of {want}"
  return ""
