"""Public op: norms of a packed tree's leaves."""

from functools import partial

import jax

from ..packed.leaf_map import make_leaf_map
from ..packed.norms import tpu as pallas_tpu
from ..packed.norms import xla
from ..packed.packing import Packed, Shard
from ..selection.requested import Requested
from ..selection.selection import Selection, run, select
from .selection import POLICY


def leaf_norms(
  packed: Packed,
  *,
  shard: Shard | None = None,
  implementation: Requested = None,
) -> jax.Array:
  """Compute the Euclidean norm of each leaf of a packed tree.

  Equivalent to `jnp.stack([jnp.linalg.norm(x.ravel()) for x in
  jax.tree.leaves(packed.unpack())])`, but accurate for every finite leaf whose
  norm float32 can hold, and in one pass over the buffer.

  Args:
    packed: Whole tree, or this device's shard of it inside `shard_map`.
    shard: Shard of this device; None for a whole tree. One small all-reduce
      gives the norms of whole leaves.
    implementation: "xla", "pallas_tpu", a sequence of them to try in order, or
      None to choose.

  Returns:
    Norms, float32 `[leaves]`, in the order of `packing.paths`.

  Raises:
    ValueError: The buffer does not fit the packing and the number of devices,
      or the implementation is unknown.
    NotImplementedError: The named implementation does not support the inputs.

  >>> import jax.numpy as jnp
  >>> tree = {"bias": jnp.array([3.0, 4.0]), "kernel": jnp.full((2, 2), 1e25)}
  >>> print(leaf_norms(Packed.of(tree)))
  [5.e+00 2.e+25]

  Source: Blue, "A portable Fortran program to find the Euclidean norm of a
  vector", ACM TOMS 4(1), 1978.
  """
  leaf_map = make_leaf_map(packed, shard)
  selection = select(POLICY, implementation, leaf_map)
  with jax.named_scope("leaf_norms"):
    (norms,) = run(
      selection,
      {
        "xla": partial(xla.norms, leaf_map=leaf_map, shard=shard),
        "pallas_tpu": partial(pallas_tpu.norms, leaf_map=leaf_map, shard=shard),
      },
      [packed.buffer],
    )
  return norms


def describe(
  packed: Packed, shard: Shard | None, implementation: Requested
) -> Selection:
  """Select as `leaf_norms` does, given all of its arguments."""
  return select(POLICY, implementation, make_leaf_map(packed, shard))
