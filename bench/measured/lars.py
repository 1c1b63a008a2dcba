"""The update of a whole network by LARS: tensor by tensor, and packed."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ...collectives import ALL_DEVICES, group_mesh, own_shard, torus_of
from ...kernels import Packed, Packing, lars_update, pack_like
from ...train.optimizer import is_bias_or_batch_norm
from ..estimated.hlo import read_instructions
from ..estimated.kernel_rows import TOP, kernel_row, longest_first
from .collectives import model_sizes
from .difference import relative_difference
from .timing import Timing, compile_and_time

_DECAY = 1e-5
_RATE = 0.1
_PASSES = 7  # norms read w and g; the step reads w, g, v and writes w, v


class Update(NamedTuple):
  """One way to update.

  Attributes:
    name: Of the way.
    function: Of the arguments.
    args: Their shapes.
    donate: Which of them are overwritten.
  """

  name: str
  function: Callable[..., Any]
  args: tuple[Any, ...]
  donate: tuple[int, ...]


def updates(params: Any) -> list[Update]:
  """The ways of one device, for parameters of these shapes."""
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
    # Overwriting its arguments, it would copy: XLA takes half as long again.
    Update("optax.lars, per tensor", per_tensor, tree, ()),
    Update("lars_update, packed", _packed, buffers, (0, 1)),
    Update("packed, gradients to pack", from_leaves, leaves, (0, 1)),
  ]


def sharded_update(params: Any, devices: Sequence[jax.Device]) -> Any:
  """The update of each device's shard, lowered for a slice."""
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
  buffer = _on(mesh, _buffer(packing), spec)
  rate = _on(mesh, jax.ShapeDtypeStruct((), jnp.float32), P())
  return jax.jit(sharded, donate_argnums=(0, 1)).lower(
    buffer, buffer, buffer, rate
  )


def time_updates(model: str, *, runs: int) -> list[dict[str, Any]]:
  """Times the ways on the default device.

  Returns:
    A row for each: how many times as fast as the first it is, the largest
    `relative_difference` of the new weights to its, times and memory.
  """
  params = model_sizes(model).params
  trees = [_drawn(params, seed) for seed in range(3)]
  timings = {}
  for update in updates(params):
    args = map(_filled, update.args, [*trees, _RATE])
    timings[update.name] = compile_and_time(update.function, *args, runs=runs)
  first = next(iter(timings.values()))
  return [
    {
      "update": name,
      "times faster": first.median / timing.median,
      "difference": relative_difference(*map(_weights, (first, timing))),
      **timing.row(),
    }
    for name, timing in timings.items()
  ]


def estimate_updates(
  model: str, *, chip: str, devices: Sequence[jax.Device]
) -> list[dict[str, Any]]:
  """Judges the ways for a core of a TPU, and a shard of a slice; a row each.

  Returns:
    Microseconds, and how many times those of the first; kernels that the core
    runs, and how many of them are Pallas'; megabytes of HBM, and how many times
    the least there can be, `7 * 4` bytes a parameter; seconds to compile;
    kernels whose time is not known, with the reason; and under "top" a
    `kernel_row` for those that take longest. Of a shard all but the seconds are
    of its kernels alone, without the all-reduce of the norms and the barrier
    that a program begins with on a slice.
  """
  from ..estimated.static import compiler, judge, judge_lowered

  params = model_sizes(model).params
  judged = {
    update.name: judge(
      update.function,
      *update.args,
      chip=chip,
      free_layouts=True,
      donate=update.donate,
    )
    for update in updates(params)
  }
  shard = judge_lowered(sharded_update(params, devices), chip)
  judged[f"one of {len(devices)} shards"] = _without_collectives(shard)
  first = next(iter(judged.values()))
  floor = _PASSES * sum(4 * x.size for x in jax.tree.leaves(params))
  return [
    {
      "update": name,
      "us": j.microseconds,
      "times faster": first.microseconds / j.microseconds,
      "kernels": sum(kernel.calls for kernel in j.kernels),
      "pallas": j.hlo.count('"tpu_custom_call"'),
      "megabytes": j.hbm_bytes / 1e6,
      "of the least": j.hbm_bytes / floor,
      "compile_s": j.compile_s,
      "failures": [note for note in j.unmodelled if "FAILED" in note],
      "compiler": compiler(),
      "top": [kernel_row(kernel) for kernel in longest_first(j.kernels)[:TOP]],
    }
    for name, j in judged.items()
  ]


def _drawn(params: Any, seed: int) -> Any:
  random = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: random.normal(size=x.shape).astype(x.dtype), params
  )


def _filled(shapes: Any, values: Any) -> Any:
  """An argument of an update: a tree, packed, optax' momenta, or the rate."""
  if isinstance(shapes, Packed):
    return Packed(shapes.packing.pack(values), shapes.packing)
  if isinstance(shapes, tuple):
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    trace = jax.tree.map(jnp.negative, values)  # optax adds what it traces
    return optax.tree_utils.tree_set(state, trace=trace)
  return jax.tree.map(jnp.asarray, values)


def _weights(timing: Timing) -> Any:
  """The tree that the first update made."""
  params, _ = timing.first
  return params.unpack() if isinstance(params, Packed) else params


def _without_collectives(judged: Any) -> Any:
  instructions = read_instructions(judged.hlo)
  kernels = [
    kernel
    for kernel in judged.kernels
    if not instructions[kernel.name].collective
  ]
  return judged._replace(
    microseconds=sum(k.microseconds for k in kernels),
    hbm_bytes=sum(k.hbm_bytes for k in kernels),
    kernels=kernels,
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
    lambda step: _RATE / (1 + step.astype(jnp.float32)),
    weight_decay=_DECAY,
    weight_decay_mask=mask,
    trust_ratio_mask=mask,
  )


def _buffer(packing: Packing) -> Any:
  return jax.ShapeDtypeStruct((packing.rows, 128), jnp.float32)


def _on(mesh: Mesh, x: Any, spec: P) -> jax.ShapeDtypeStruct:
  sharding = NamedSharding(mesh, spec)
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
