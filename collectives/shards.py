"""Reduce-scatter and all-gather along the rings of the torus."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from ..kernels import Shard
from .mesh import ALL_DEVICES
from .rings import Rings, torus_rings
from .varying import mesh_axes, require_varying


class Torus(NamedTuple):
  """Torus of a mesh's devices, built by `torus_of`.

  Attributes:
    rings: Rings along each dimension, as indices of devices in mesh order.
  """

  rings: tuple[Rings, ...]

  @property
  def devices(self) -> int:
    """Number of devices."""
    return math.prod(len(rings[0]) for rings in self.rings)

  @property
  def shard_of_device(self) -> np.ndarray:
    """Index of each device's shard, int `[devices]`, in mesh order.

    A buffer sharded over `ALL_DEVICES` holds the shards in this order, so
    indexing by `np.argsort` of it sorts them.
    """
    shard = np.zeros(self.devices, int)
    for rings in self.rings:
      for ring in rings:
        shard[list(ring)] *= len(ring)
        shard[list(ring)] += range(len(ring))
    return shard


def torus_of(mesh: Mesh) -> Torus:
  """Find the torus of a mesh's devices.

  Args:
    mesh: Mesh of all devices.

  Returns:
    Torus whose rings hold indices of devices in mesh order.

  >>> from podscale.collectives import group_mesh
  >>> torus_of(group_mesh(jax.devices()[:1])).shard_of_device
  array([0])
  """
  return Torus(torus_rings(list(mesh.devices.flat)))


def own_shard(torus: Torus, axis_names: Sequence[str] = ALL_DEVICES) -> Shard:
  """Return the shard of this device, for ops on shards of packed trees.

  Args:
    torus: Torus of the mesh passed to `shard_map`.
    axis_names: All axes of that mesh, in its order.

  Returns:
    Shard: its number, traced, and the axes that the shards span.

  Raises:
    ValueError: A name is not a mesh axis, or the torus belongs to another mesh.

  >>> from podscale.collectives import group_mesh
  >>> mesh = group_mesh(jax.devices()[:1])
  >>> P = jax.sharding.PartitionSpec
  >>> torus = torus_of(mesh)
  >>> number = jax.shard_map(
  ...   lambda: own_shard(torus).number[None],
  ...   mesh=mesh,
  ...   in_specs=(),
  ...   out_specs=P(ALL_DEVICES),
  ... )
  >>> print(number())
  [0]
  """
  axes = _axes_of(torus, axis_names)
  shards = jnp.asarray(torus.shard_of_device, jnp.int32)
  return Shard(shards[lax.axis_index(axes)], axes)


def scatter_mean(
  buffer: jax.Array,
  torus: Torus,
  axis_names: Sequence[str] = ALL_DEVICES,
) -> jax.Array:
  """Average a buffer over all devices and return this device's shard.

  This takes one reduce-scatter for each dimension of the torus, along rings of
  neighbours: the first moves the whole buffer, each later one the shard that is
  left. XLA's own reduce-scatter over the whole mesh is one ring through all
  devices on v3, and an all-reduce of the whole buffer on other chips.

  Args:
    buffer: Buffer of this device inside `shard_map`, float32 `[rows, ...]`;
      rows is a multiple of the number of devices.
    torus: Torus of the mesh passed to `shard_map`.
    axis_names: All axes of that mesh, in its order.

  Returns:
    Shard `torus.shard_of_device[i]` on device i, float32
    `[rows / devices, ...]`.

  Raises:
    ValueError: The buffer is not float32, the number of devices does not divide
      its rows, the buffer is the same on all devices along an axis, a name is
      not a mesh axis, or the torus belongs to another mesh.

  >>> from podscale.collectives import group_mesh
  >>> mesh = group_mesh(jax.devices()[:1])
  >>> P = jax.sharding.PartitionSpec
  >>> torus = torus_of(mesh)
  >>> mean = jax.shard_map(
  ...   lambda x: gather_shards(scatter_mean(x, torus), torus),
  ...   mesh=mesh,
  ...   in_specs=P(ALL_DEVICES),
  ...   out_specs=P(ALL_DEVICES),
  ... )
  >>> print(mean(jnp.arange(3.0)))  # on one device the mean is x
  [0. 1. 2.]
  """
  axes, devices = _axes_of(torus, axis_names), torus.devices
  if buffer.dtype != jnp.float32 or buffer.shape[0] % devices:
    raise ValueError(
      "scatter_mean needs a float32 buffer whose rows are a multiple of "
      f"{devices} devices, got {buffer.dtype} {buffer.shape}"
    )
  require_varying(
    "the buffer", buffer, axes, cure="take each device's own gradients"
  )
  with jax.named_scope("scatter_mean"):
    for rings in torus.rings:
      buffer = lax.psum_scatter(
        buffer, axes, axis_index_groups=rings, tiled=True
      )
    return buffer / devices


def gather_shards(
  shard: jax.Array,
  torus: Torus,
  axis_names: Sequence[str] = ALL_DEVICES,
) -> jax.Array:
  """Gather the shards of all devices; the inverse of `scatter_mean`.

  This takes one all-gather for each dimension of the torus. Cast the shard to
  bfloat16 first if the result is only read in bfloat16: that halves the bytes.

  Args:
    shard: Shard `torus.shard_of_device[i]` on device i, `[rows, ...]`, any
      dtype.
    torus: Torus of the mesh passed to `shard_map`.
    axis_names: All axes of that mesh, in its order.

  Returns:
    Whole buffer, `[rows * devices, ...]`, the same on all devices but typed as
    varying; see the example of `scatter_mean`.

  Raises:
    ValueError: A name is not a mesh axis, or the torus belongs to another mesh.
  """
  axes = _axes_of(torus, axis_names)
  with jax.named_scope("gather_shards"):
    for rings in reversed(torus.rings):
      shard = lax.all_gather(shard, axes, axis_index_groups=rings, tiled=True)
    return shard


def _axes_of(torus: Torus, axis_names: Sequence[str]) -> tuple[str, ...]:
  axes = mesh_axes(axis_names)
  if lax.axis_size(axes) != torus.devices:
    raise ValueError(
      f"the torus has {torus.devices} devices, the axes {', '.join(axes)} have "
      f"{lax.axis_size(axes)}; build it from this mesh: torus_of(mesh)"
    )
  return axes
