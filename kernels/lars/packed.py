"""LARS update of packed buffers: sums for the norms, then one step."""

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
  """Update whole packed trees, or shards of them.

  Args:
    params: Weights.
    grads: Gradients of the weights.
    momenta: Momentum buffers.
    adapted: True for each leaf that gets a trust ratio and weight decay.
    settings: Arguments of `lars_update`.
    shard: Shard of this device; None for whole trees.
    by: Implementation, a module with `sums` and `apply`.

  Returns:
    New params and new momenta.
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
  """Pack trees, update them by the kernels, and unpack them."""
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
