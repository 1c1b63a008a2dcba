"""A tree of arrays as one buffer, a leaf after another."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any

LANES = 128
SUBLANES = 8  # of a float32 register
_SHARD = 16  # rows of a bfloat16 register


@dataclass(frozen=True)
class Packing:
  """Where each leaf of a tree lies in a buffer `[rows, 128]`.

  Every leaf begins a block of 8 rows, a float32 register, so that such a block
  belongs to one leaf. What a leaf's last block and the buffer have too much is
  0.

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

  @property
  def leaf_rows(self) -> tuple[int, ...]:
    """How many rows each leaf has, in the order of the tree's leaves."""
    return tuple(map(_rows_of, self.shapes))

  def pack(self, tree: PyTree) -> jax.Array:
    """The tree's leaves in float32, `[rows, 128]`.

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
    blocks = [_block(leaf.astype(jnp.float32)) for leaf in leaves]
    spare = self.rows - sum(self.leaf_rows)
    blocks.append(jnp.zeros((spare, LANES), jnp.float32))
    return jnp.concatenate(blocks)

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
      flat = buffer[start : start + rows].reshape(-1)
      yield flat[: math.prod(shape)].reshape(shape)
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
        f"only floating arrays are packed, {jax.tree_util.keystr(path)} is "
        f"{leaf.dtype}"
      )
  leaves, structure = jax.tree.flatten(tree)
  if not leaves:
    raise ValueError("the tree to pack has no leaves")
  shapes = tuple(leaf.shape for leaf in leaves)
  rows, multiple = sum(map(_rows_of, shapes)), _SHARD * shards
  return Packing(structure, shapes, -(-rows // multiple) * multiple)


def _rows_of(shape: tuple[int, ...]) -> int:
  return -(-math.prod(shape) // (SUBLANES * LANES)) * SUBLANES


def _block(leaf: jax.Array) -> jax.Array:
  rows = _rows_of(leaf.shape)
  flat = jnp.pad(leaf.reshape(-1), (0, rows * LANES - leaf.size))
  return flat.reshape(rows, LANES)


def _first_difference(ours, expected) -> str:
  for i, (got, want) in enumerate(zip(ours, expected, strict=False)):
    if got != want:
      return f"; leaf {i} is {got} instead of {want}"
  return ""
