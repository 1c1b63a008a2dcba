"""The collectives of a training step, without the rest of the step.

Each part as one would write it first, and as the library does it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ...collectives import (
  ALL_DEVICES,
  MEMBER,
  Torus,
  device_varying,
  evaluation_sums,
  gather_shards,
  group_moments,
  mean_gradients,
  scatter_mean,
  torus_of,
)
from ...kernels import Moments, pack_like
from ...model import BatchNorm, EfficientNet, model_spec
from ..compiled.hlo import read_instructions

_CLASSES = 1000
_EVALUATED = 64  # images on a device


class Part(NamedTuple):
  """One implementation of a part of a step's communication.

  Attributes:
    name: Part and implementation, "part: implementation".
    function: Jitted function of arrays with one row for each device.
    args: Shapes of the arguments.
    tree: Function from one device's result to the tree that is compared
      between implementations.
  """

  name: str
  function: Any
  args: tuple[jax.ShapeDtypeStruct, ...]
  tree: Callable[[Any], Any]

  def counted(self) -> dict[str, Any]:
    """Compile the part and count its collectives and their megabytes."""
    hlo = self.function.lower(*self.args).compile().as_text()
    count, bytes_ = collectives_in(hlo)
    return {"part": self.name, "collectives": count, "megabytes": bytes_ / 1e6}


class Sizes(NamedTuple):
  """Sizes of the arrays that a model's step communicates.

  Attributes:
    channels: Channels of each batch norm, in the order of the forward pass.
    params: Shapes of the parameters.
  """

  channels: tuple[int, ...]
  params: Any

  @property
  def gradient_bytes(self) -> int:
    """Bytes of all gradients in float32."""
    return sum(4 * x.size for x in jax.tree.leaves(self.params))


def model_sizes(model: str) -> Sizes:
  """Return the sizes of a member of the family.

  >>> sizes = model_sizes("b0")
  >>> len(sizes.channels), sum(sizes.channels), sizes.gradient_bytes // 4
  (49, 21008, 5288548)
  """
  network = nnx.eval_shape(
    lambda: EfficientNet(model_spec(model), rngs=nnx.Rngs(0))
  )
  norms = [x for _, x in nnx.iter_graph(network) if isinstance(x, BatchNorm)]
  channels = tuple(norm.scale.shape[0] for norm in norms)
  return Sizes(channels, nnx.to_pure_dict(nnx.state(network, nnx.Param)))


def step_parts(sizes: Sizes, mesh: Mesh) -> list[Part]:
  """List all parts, each as written first and as the library does it.

  Args:
    sizes: Sizes of the model.
    mesh: All devices, in batch-norm groups.
  """
  devices = mesh.devices.size
  torus = torus_of(mesh)
  packing = pack_like(sizes.params, devices)

  def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(
      (devices, *shape), dtype, sharding=NamedSharding(mesh, P(ALL_DEVICES))
    )

  def part(name, function, *args, tree=lambda result: result):
    def local(*args):
      result = function(*(x[0] for x in args))
      return device_varying(jax.tree.map(lambda x: x[None], result))

    spec = P(ALL_DEVICES)
    sharded = jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec)
    return Part(name, jax.jit(sharded), args, tree)

  values = array(max(sizes.channels))
  gradients = array(packing.rows, 128)
  logits = array(_EVALUATED, _CLASSES), array(_EVALUATED, dtype=jnp.int32)
  return [
    part("moments: mean, mean square", _layers(sizes, _plain), values),
    part("moments: gathered", _layers(sizes, group_moments), values),
    part("moments: about a pivot", _layers(sizes, _about_zero), values),
    part("gradients: a psum each", _per_tensor(packing), gradients),
    part("gradients: mean_gradients", _fused(packing), gradients),
    part(
      "gradients: scattered, gathered",
      _sharded(torus),
      gradients,
      tree=packing.unpack,
    ),
    part("evaluation_sums", evaluation_sums, *logits),
  ]


def collectives_in(hlo: str) -> tuple[int, int]:
  """Count a compiled program's collectives and the bytes of their results.

  A computation that the program calls several times counts once.

  >>> collectives_in("%x = (f32[8]{0:T(256)}, bf16[4]{0}) all-reduce(%a, %b)")
  (1, 40)
  """
  found = [x for x in read_instructions(hlo).values() if x.collective]
  return len(found), sum(x.bytes for x in found)


def _layers(sizes: Sizes, merge: Callable[[Moments], Moments]):
  """Chain batch norms, each waiting for the one before, and differentiate."""

  def chain(values):
    result = jnp.float32(0)
    for c in sizes.channels:
      mean = values[:c] + result
      merged = merge(Moments(np.float32(1), mean, mean * mean))
      # A small factor keeps the last layer's result finite.
      result = 1e-3 * jnp.sin(jnp.mean(merged.mean * merged.m2))
    return result

  return jax.grad(chain)


def _plain(moments: Moments) -> Moments:
  square = moments.m2 / moments.count + moments.mean**2
  mean = lax.pmean(moments.mean, MEMBER)
  variance = lax.pmean(square, MEMBER) - mean**2
  count = moments.count * lax.axis_size(MEMBER)
  # Every device has a loss of its own.
  return Moments(count, *device_varying((mean, variance * count), MEMBER))


def _about_zero(moments: Moments) -> Moments:
  return group_moments(moments, pivot=jnp.zeros_like(moments.mean))


def _per_tensor(packing):
  def mean(gradients):
    tree = packing.unpack(gradients)
    return jax.tree.map(lambda g: lax.pmean(g, ALL_DEVICES), tree)

  return mean


def _fused(packing):
  return lambda gradients: mean_gradients(packing.unpack(gradients))


def _sharded(torus: Torus):
  return lambda gradients: gather_shards(scatter_mean(gradients, torus), torus)
