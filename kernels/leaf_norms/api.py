"""The public op: the norms of a packed tree's leaves."""

import jax

from ..packed.leaf_map import make_leaf_map
from ..packed.norms import tpu as pallas_tpu
from ..packed.norms import xla
from ..packed.packing import Packed, Shard
from ..selection.dispatch import Requested, dispatch
from ..selection.for_tpu import for_tpu


def leaf_norms(
  packed: Packed,
  *,
  shard: Shard | None = None,
  implementation: Requested = None,
) -> jax.Array:
  """The Euclidean norm of each leaf of a packed tree.

  Equivalent to `jnp.stack([jnp.linalg.norm(x.ravel()) for x in
  jax.tree.leaves(packed.unpack())])`, but right for every finite leaf whose
  norm float32 can hold, and one pass over the buffer.

  Args:
    packed: the tree, whole, or this device's shard of it inside `shard_map`.
    shard: which shard this device has; the norms are those of whole leaves all
      the same, with one small all-reduce.
    implementation: a name, several in order, or None for the best there is;
      "xla" and "pallas_tpu" exist.

  Returns:
    float32 `[leaves]`, in the order of the tree's leaves (`packing.paths`).

  Raises:
    ValueError: the buffer is not that of the packing, or not one of as many
      shards as there are devices; an unknown implementation.
    NotImplementedError: the implementation asked for cannot do this.

  >>> import jax.numpy as jnp
  >>> tree = {"bias": jnp.array([3.0, 4.0]), "kernel": jnp.full((2, 2), 1e25)}
  >>> print(leaf_norms(Packed.of(tree)))
  [5.e+00 2.e+25]

  Source: Blue, "A portable Fortran program to find the Euclidean norm of a
  vector", ACM TOMS 4(1), 1978.
  """
  leaf_map = make_leaf_map(packed, shard)
  with jax.named_scope("leaf_norms"):
    (norms,) = dispatch(
      "leaf_norms",
      {"xla": xla.norms, "pallas_tpu": pallas_tpu.norms},
      for_tpu(implementation),
      [packed.buffer],
      leaf_map,
      shard,
    )
  return norms
