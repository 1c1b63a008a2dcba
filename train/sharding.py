"""Where the devices of a mesh have the parts of a training state.

The state's global arrays are in the order of the mesh: the part of a buffer
that device i has is the shard that `scatter_mean` gives it. A checkpoint holds
the tensors by name instead, whatever the devices.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ..collectives import ALL_DEVICES, torus_of
from ..kernels import Packed
from ..kernels.surface import LANES
from ..model import EfficientNet
from .optimizer import Optimizer
from .state import TrainState, Variables, first_state

PyTree = Any


class Placement:
  """The weights and their like in shards, the rest the same on all devices.

  Args:
    mesh: From `collectives.group_mesh`.
  """

  def __init__(self, mesh: Mesh):
    self.mesh = mesh
    self.torus = torus_of(mesh)
    self._everywhere = NamedSharding(mesh, P())
    self._unpack = jax.jit(self._unpacked, out_shardings=self._everywhere)
    self._unpack_average = jax.jit(
      lambda state: self._unpacked(state).average,
      out_shardings=self._everywhere,
    )

  def init_state(
    self,
    create_model: Callable[[nnx.Rngs], EfficientNet],
    optimizer: Optimizer,
    *,
    seed: int,
  ) -> TrainState:
    """The state before the first step, the same for any devices.

    Args:
      create_model: Makes the network.
      optimizer: What the weights are updated with.
      seed: Of the initial weights.
    """

    def create() -> TrainState:
      shards = self.torus.devices
      state = first_state(create_model, optimizer, seed=seed, shards=shards)
      return self._reordered(state, self.torus.shard_of_device)

    shardings = self.shardings(jax.eval_shape(create))
    options = _compiler_options(self.mesh)
    jitted = jax.jit(create, out_shardings=shardings, compiler_options=options)
    return jitted()

  def specs(self, state: TrainState) -> PyTree:
    """Which parts of a state are in shards, for `shard_map`."""

    def spec(part: Any) -> P:
      return P(ALL_DEVICES) if _is_sharded(part, state) else P()

    return jax.tree.map(spec, state, is_leaf=_is_packed)

  def shardings(self, state: TrainState) -> PyTree:
    """The same, for `jit`, which names no axis of one device in its results."""
    axes = tuple(name for name in ALL_DEVICES if self.mesh.shape[name] > 1)

    def sharding(spec: P) -> NamedSharding:
      return NamedSharding(self.mesh, P(axes) if spec and axes else P())

    return jax.tree.map(sharding, self.specs(state))

  def unpack(self, state: TrainState) -> TrainState:
    """The state with the tensors by name, whole, on all devices."""
    return self._unpack(state)

  def unpack_average(self, state: TrainState) -> Variables:
    """The average, which evaluation takes, as `unpack` gives it."""
    return self._unpack_average(state)

  def unpacked_shapes(self, state: TrainState) -> TrainState:
    """What `unpack` would give, as `jax.ShapeDtypeStruct`s with shardings."""

    def placed(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
      return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._everywhere)

    return jax.tree.map(placed, jax.eval_shape(self._unpacked, state))

  def pack(self, unpacked: TrainState, like: TrainState) -> TrainState:
    """The inverse of `unpack`.

    Args:
      unpacked: As `unpack` gives it, on these devices or others.
      like: A state of this run, or its shapes.
    """

    def packed(part: Any, tree: PyTree) -> Any:
      if not _is_packed(part):
        return tree
      return Packed(part.packing.pack(tree), part.packing)

    def everything(unpacked: TrainState) -> TrainState:
      state = jax.tree.map(packed, like, unpacked, is_leaf=_is_packed)
      return self._reordered(state, self.torus.shard_of_device)

    return jax.jit(everything, out_shardings=self.shardings(like))(unpacked)

  def _unpacked(self, state: TrainState) -> TrainState:
    in_order = self._reordered(state, np.argsort(self.torus.shard_of_device))

    def unpacked(part: Any) -> Any:
      return part.unpack() if _is_packed(part) else part

    return jax.tree.map(unpacked, in_order, is_leaf=_is_packed)

  def _reordered(self, state: TrainState, order: np.ndarray) -> TrainState:
    """With the shards in another order."""

    def reordered(part: Any) -> Any:
      if not _is_sharded(part, state):
        return part
      shards = part.buffer.reshape(self.torus.devices, -1, LANES)
      return Packed(shards[order].reshape(-1, LANES), part.packing)

    return jax.tree.map(reordered, state, is_leaf=_is_packed)


def _is_packed(part: Any) -> bool:
  return isinstance(part, Packed)


def _is_sharded(part: Any, state: TrainState) -> bool:
  """Whether it is packed as the weights are: those, momenta, averages."""
  return _is_packed(part) and part.packing == state.variables.params.packing


def _compiler_options(mesh: Mesh) -> dict[str, int] | None:
  """For a program that runs once: on a CPU compiling it is what takes time.

  Without optimisation the demo's takes a third of the time to compile.
  """
  if mesh.devices.flat[0].platform != "cpu":
    return None
  return {"xla_backend_optimization_level": 0}
