"""LARS update in plain JAX, for tensors and for packed buffers."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ..packed.leaf_map import LeafMap
from ..packed.leaf_rows import SUBLANES
from ..packed.norms import xla as leaf_norms
from ..packed.norms.scaled_norm import norm, norm_of_sums
from .formula import Scalar, Settings, adapted_rate, step

sums = leaf_norms.sums


def update(
  params: Sequence[jax.Array],
  grads: Sequence[jax.Array],
  momenta: Sequence[jax.Array],
  adapted: Sequence[bool],
  settings: Settings,
) -> tuple[list[jax.Array], list[jax.Array]]:
  """Update tensors one after the other.

  Args:
    params: Weights.
    grads: Gradients of the same shapes.
    momenta: Momentum buffers of the same shapes.
    adapted: True for each tensor that gets a trust ratio and weight decay.
    settings: Arguments of `lars_update`.

  Returns:
    New params and new momenta.
  """
  changes, momenta = steps(params, grads, momenta, adapted, settings)
  moved = [
    (param.astype(change.dtype) - change).astype(param.dtype)
    for param, change in zip(params, changes, strict=True)
  ]
  return moved, momenta


def steps(
  params: Sequence[jax.Array],
  grads: Sequence[jax.Array],
  momenta: Sequence[jax.Array],
  adapted: Sequence[bool],
  settings: Settings,
) -> tuple[list[jax.Array], list[jax.Array]]:
  """Compute the changes that `update` subtracts, and the new momenta.

  The changes are at least float32.
  """
  both = [
    _step(*tensors, settings)
    for tensors in zip(params, grads, momenta, adapted, strict=True)
  ]
  return [change for change, _ in both], [v for _, v in both]


def apply(
  w: jax.Array,
  g: jax.Array,
  v: jax.Array,
  sums: jax.Array,
  leaf_map: LeafMap,
  settings: Settings,
) -> tuple[jax.Array, jax.Array]:
  """Apply one step to packed buffers.

  Args:
    w: Weights, float32 `[rows, 128]`.
    g: Gradients of the same shape.
    v: Momentum buffers of the same shape.
    sums: Results of `sums`, added over all shards.
    leaf_map: Map from registers to adapted leaves.
    settings: Arguments of `lars_update`, with the scalars as arrays.

  Returns:
    New weights and new momenta.
  """
  weight_norms, gradient_norms = norm_of_sums(sums)
  rates = adapted_rate(weight_norms, gradient_norms, settings)
  rates = jnp.append(rates, settings.learning_rate)
  leaf = jnp.repeat(leaf_map.leaf_of_register, SUBLANES)[:, None]
  decay = jnp.where(leaf < leaf_map.leaves, settings.weight_decay, 0)
  change, v = step(w, g, v, rates[leaf], decay, settings)
  return w - change, v


def _step(param, grad, velocity, adapt: bool, settings: Settings):
  wide = jnp.finfo(param.dtype).bits > 32
  dtype = param.dtype if wide else jnp.dtype(jnp.float32)
  w, g, v = (x.astype(dtype) for x in (param, grad, velocity))
  settings = settings.astype(dtype)
  rate: Scalar = settings.learning_rate
  decay: Scalar = jnp.zeros((), dtype)
  if adapt:
    decay = settings.weight_decay
    measured = g + decay * w if settings.norms_decayed_gradient else g
    rate = adapted_rate(norm(w), norm(measured), settings)
  change, v = step(w, g, v, rate, decay, settings)
  return change, v.astype(velocity.dtype)
