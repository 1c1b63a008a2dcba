"""The LARS update of packed buffers: sums for the norms, and one step."""

from collections.abc import Sequence
from types import ModuleType

import jax
import jax.numpy as jnp

from ..packed.leaf_map import make_leaf_map
from ..packed.norms.xla import sum_over_shards
from ..packed.packing import Packed, Shard, pack_like
from . import tpu as pallas_tpu
from .formula import Settings

Pair = tuple[Packed, Packed]


def update(
  params: Packed,
  grads: Packed,
  momenta: Packed,
  adapted: Sequence[bool],
  settings: Settings,
  shard: Shard | None,
  *,
  by: ModuleType,
) -> Pair:
  """The update of `lars_update`, of whole buffers or shards.

  Args:
    params: the weights.
    grads: their gradients.
    momenta: their momentum.
    adapted: per leaf, whether it gets a trust ratio and decay.
    settings: the keyword arguments of `lars_update`.
    shard: which shard the buffers are, or None.
    by: the implementation, a module with `sums` and `apply`.

  Returns:
    The new params and the new momenta.
  """
  settings = settings.astype(jnp.dtype(jnp.float32))
  leaf_map = make_leaf_map(params, shard, adapted)
  decay = settings.weight_decay if settings.norms_decayed_gradient else None
  sums = by.sums([params.buffer, grads.buffer], leaf_map, decay)
  w, v = by.apply(
    *(params.buffer, grads.buffer, momenta.buffer),
    *(sum_over_shards(sums, shard), leaf_map, settings),
  )
  return Packed(w, params.packing), Packed(v, params.packing)


def update_trees(
  params: Sequence[jax.Array],
  grads: Sequence[jax.Array],
  momenta: Sequence[jax.Array],
  adapted: Sequence[bool],
  settings: Settings,
) -> tuple[list[jax.Array], list[jax.Array]]:
  """The same of tensors: they are packed, and unpacked again.

  Raises:
    NotImplementedError: a tensor is wider than float32, which they are packed
      in, or VMEM does not hold the sums of all.
  """
  for leaf in (*params, *grads, *momenta):
    if jnp.finfo(leaf.dtype).bits > 32:
      raise NotImplementedError(
        f"lars_update: pallas_tpu computes in float32, got {leaf.dtype}"
      )
  packing = pack_like(list(params))

  def pack(leaves):
    return Packed(packing.pack(list(leaves), implementation=None), packing)

  w, v = update(
    *(pack(params), pack(grads), pack(momenta)),
    *(adapted, settings, None),
    by=pallas_tpu,
  )
  return _unpack_like(w, params), _unpack_like(v, momenta)


def _unpack_like(packed: Packed, leaves: Sequence[jax.Array]) -> list:
  return [
    new.astype(old.dtype)
    for new, old in zip(packed.unpack(), leaves, strict=True)
  ]
