"""Layout of a training state on the devices of a mesh.

Weights, momenta and averages are split over the devices; everything else is
replicated. The state's global arrays follow the order of the mesh: device i
holds the shard that `scatter_mean` gives it. A checkpoint holds whole tensors
by name instead, so that other devices can restore it.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ..collectives import ALL_DEVICES, torus_of
from ..kernels import Packed
from ..kernels.surface import LANES
from .state import TrainState, Variables

PyTree = Any


class StateSharding:
  """Layout of a `TrainState`: weights, momenta and averages are in shards.

  Args:
    mesh: Mesh from `collectives.group_mesh`.
  """

  def __init__(self, mesh: Mesh):
    self.mesh = mesh
    self.torus = torus_of(mesh)
    self._replicated = NamedSharding(mesh, P())
    self._unpack = jax.jit(self._unpacked, out_shardings=self._replicated)
    self._unpack_average = jax.jit(
      lambda state: self._unpacked(state).average,
      out_shardings=self._replicated,
    )

  def init_state(self, first: Callable[[], TrainState]) -> TrainState:
    """Compute the state before the first step, in its shards.

    Args:
      first: Function that makes the whole state.
    """

    def create() -> TrainState:
      return self._reordered(first(), self.torus.shard_of_device)

    shardings = self.shardings(jax.eval_shape(create))
    options = _compiler_options(self.mesh)
    jitted = jax.jit(create, out_shardings=shardings, compiler_options=options)
    return jitted()

  def abstract_state(self, first: Callable[[], TrainState]) -> TrainState:
    """Return shapes, dtypes and shardings of `init_state`'s result.

    The devices need not exist: this compiles and computes nothing.

    Args:
      first: Function that makes the whole state.
    """
    shapes = jax.eval_shape(first)
    return jax.tree.map(
      lambda part, sharding: jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        part,
      ),
      shapes,
      self.shardings(shapes),
      is_leaf=_is_packed,
    )

  def specs(self, state: TrainState) -> PyTree:
    """Return the partition spec of each part of a state, for `shard_map`."""

    def spec(part: Any) -> P:
      return P(ALL_DEVICES) if _is_sharded(part, state) else P()

    return jax.tree.map(spec, state, is_leaf=_is_packed)

  def shardings(self, state: TrainState) -> PyTree:
    """Return the sharding of each part of a state, for `jit`.

    `jit` omits mesh axes of size 1 from the shardings of its results, so these
    do too.
    """
    axes = tuple(name for name in ALL_DEVICES if self.mesh.shape[name] > 1)

    def sharding(spec: P) -> NamedSharding:
      return NamedSharding(self.mesh, P(axes) if spec and axes else P())

    return jax.tree.map(sharding, self.specs(state))

  def unpack(self, state: TrainState) -> TrainState:
    """Gather a state to whole tensors by name, on every device."""
    return self._unpack(state)

  def unpack_average(self, state: TrainState) -> Variables:
    """Gather only the average, which evaluation needs, as `unpack` does."""
    return self._unpack_average(state)

  def unpacked_shapes(self, state: TrainState) -> TrainState:
    """Return the `jax.ShapeDtypeStruct`s of `unpack`'s result, with shardings.

    Args:
      state: State of this run, or its shapes.
    """

    def replicated(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
      return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._replicated)

    return jax.tree.map(replicated, jax.eval_shape(self._unpacked, state))

  def pack(self, unpacked: TrainState, like: TrainState) -> TrainState:
    """Invert `unpack`.

    Args:
      unpacked: Result of `unpack`, on these devices or others.
      like: State of this run, or its shapes.
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
    """Permute the shards of a state."""

    def reordered(part: Any) -> Any:
      if not _is_sharded(part, state):
        return part
      shards = part.buffer.reshape(self.torus.devices, -1, LANES)
      return Packed(shards[order].reshape(-1, LANES), part.packing)

    return jax.tree.map(reordered, state, is_leaf=_is_packed)


def _is_packed(part: Any) -> bool:
  return isinstance(part, Packed)


def _is_sharded(part: Any, state: TrainState) -> bool:
  """Tell if a part has the packing of the weights, as momenta and averages."""
  return _is_packed(part) and part.packing == state.variables.params.packing


def _compiler_options(mesh: Mesh) -> dict[str, int] | None:
  """Return compiler options for a program that runs only once.

  On a CPU the compilation takes most of its time; without optimisation the
  demo's takes a third as long.
  """
  if mesh.devices.flat[0].platform != "cpu":
    return None
  return {"xla_backend_optimization_level": 0}
