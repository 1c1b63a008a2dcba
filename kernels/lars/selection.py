"""Chips on which the LARS kernels are preferred to XLA."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..packed.leaf_map import make_leaf_map
from ..packed.norms.tpu import check_vmem
from ..packed.packing import LANES, Packed, Shard, pack_like
from ..selection.requested import Implementation
from ..selection.selection import Policy

_BUFFERS = 2  # whose norms the kernel sums: parameters and gradients


def _plan_packed(
  params: Packed, adapted: Sequence[bool], shard: Shard | None
) -> None:
  """Check that the kernels can update a packed tree.

  Raises:
    NotImplementedError: VMEM does not hold the sums of all leaves.
  """
  check_vmem(make_leaf_map(params, shard, adapted), _BUFFERS)


def _prefer_packed(chip: str, *_) -> tuple[Implementation, str]:
  return "pallas_tpu", f"estimated ahead of XLA on v3 to tpu7x; this is {chip}"


def _plan_tensors(
  params: Sequence[jax.Array],
  grads: Sequence[jax.Array],
  momenta: Sequence[jax.Array],
  adapted: Sequence[bool],
) -> None:
  """Check that tensors can be packed and updated by the kernels.

  Raises:
    NotImplementedError: A tensor is wider than float32, in which tensors are
      packed, or VMEM does not hold the sums of all.
  """
  for leaf in (*params, *grads, *momenta):
    if jnp.finfo(leaf.dtype).bits > 32:
      raise NotImplementedError(
        f"lars_update: pallas_tpu computes in float32, got {leaf.dtype}; use "
        "implementation='xla'"
      )
  packing = pack_like(list(params))
  buffer: Any = jax.ShapeDtypeStruct((packing.rows, LANES), jnp.float32)
  _plan_packed(Packed(buffer, packing), adapted, None)


def _prefer_tensors(chip: str, *_) -> tuple[Implementation, str]:
  del chip
  return "xla", "packing the trees takes longer than the kernels gain"


PACKED = Policy("lars_update", plan=_plan_packed, prefer=_prefer_packed)
TENSORS = Policy("lars_update", plan=_plan_tensors, prefer=_prefer_tensors)
