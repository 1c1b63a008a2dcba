"""The LARS update of a whole network: tensor by tensor, and packed."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ...collectives import ALL_DEVICES, group_mesh, own_shard, torus_of
from ...kernels import Packed, Packing, lars_update, pack_like
from ...train.optimizer import is_bias_or_batch_norm

_DECAY = 1e-5
RATE = 0.1
"""Learning rate of every update."""


class Update(NamedTuple):
  """Implementation of the update.

  Attributes:
    name: Name in the benchmark's table.
    function: Update of the arguments, to be jitted.
    args: Shapes of the arguments.
    donate: Indices of the arguments that the results may overwrite.
  """

  name: str
  function: Callable[..., Any]
  args: tuple[Any, ...]
  donate: tuple[int, ...]


def updates(params: Any) -> list[Update]:
  """List the implementations on one device.

  Args:
    params: Tree of the parameters' shapes.

  Returns:
    `optax.lars`; `lars_update` of packed buffers; and the same, with the
    gradients packed in the update.
  """
  optimizer = _optax_lars(params)
  packing = pack_like(params)
  packed = Packed(_buffer(packing), packing)
  rate = jax.ShapeDtypeStruct((), jnp.float32)
  state = jax.eval_shape(optimizer.init, params)

  def per_tensor(params, state, grads):
    changes, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, changes), state

  def from_leaves(params, momenta, grads, rate):
    buffer = packing.pack(grads, implementation=None)
    return _packed(params, momenta, Packed(buffer, packing), rate)

  tree = (params, state, params)
  buffers = (packed, packed, packed, rate)
  leaves = (packed, packed, params, rate)
  return [
    # No donation: XLA would copy what it overwrites, in half as much time
    # again.
    Update("optax.lars, per tensor", per_tensor, tree, ()),
    Update("lars_update, packed", _packed, buffers, (0, 1)),
    Update("packed, gradients to pack", from_leaves, leaves, (0, 1)),
  ]


def sharded_update(params: Any, devices: Sequence[jax.Device]) -> Any:
  """Lower the update of each device's shard for a slice.

  Args:
    params: Tree of the parameters' shapes.
    devices: All devices of the slice.
  """
  mesh = group_mesh(devices)
  torus = torus_of(mesh)
  packing = pack_like(params, len(devices))

  def local(w, v, g, rate):
    w, v, g = (Packed(x, packing) for x in (w, v, g))
    shard = own_shard(torus)
    return [x.buffer for x in _packed(w, v, g, rate, shard)]

  spec = P(ALL_DEVICES)
  sharded = jax.shard_map(
    local, mesh=mesh, in_specs=(spec, spec, spec, P()), out_specs=spec
  )
  buffer = _placed(mesh, _buffer(packing), spec)
  rate = _placed(mesh, jax.ShapeDtypeStruct((), jnp.float32), P())
  return jax.jit(sharded, donate_argnums=(0, 1)).lower(
    buffer, buffer, buffer, rate
  )


def _packed(params, momenta, grads, rate, shard=None):
  return lars_update(
    *(params, grads, momenta),
    learning_rate=rate,
    weight_decay=_DECAY,
    exclude=is_bias_or_batch_norm,
    shard=shard,
  )


def _optax_lars(params):
  mask = jax.tree.map_with_path(
    lambda path, _: not is_bias_or_batch_norm(path), params
  )
  return optax.lars(
    lambda step: RATE / (1 + step.astype(jnp.float32)),
    weight_decay=_DECAY,
    weight_decay_mask=mask,
    trust_ratio_mask=mask,
  )


def _buffer(packing: Packing) -> Any:
  return jax.ShapeDtypeStruct((packing.rows, 128), jnp.float32)


def _placed(mesh: Mesh, x: Any, spec: P) -> jax.ShapeDtypeStruct:
  sharding = NamedSharding(mesh, spec)
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
