"""Sums that each device gets a shard of, and shards brought together again."""

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
  """How the devices of a mesh lie on the torus; made by `torus_of`.

  Attributes:
    rings: for each dimension the rings along it, as places on the mesh.
  """

  rings: tuple[Rings, ...]

  @property
  def devices(self) -> int:
    """How many there are."""
    return math.prod(len(rings[0]) for rings in self.rings)

  @property
  def shard_of_device(self) -> np.ndarray:
    """Which shard each device has, `[devices]` int, in the mesh's order.

    A buffer sharded over `ALL_DEVICES` holds the shards in this order; so
    `np.argsort` of it puts them in theirs.
    """
    shard = np.zeros(self.devices, int)
    for rings in self.rings:
      for ring in rings:
        shard[list(ring)] *= len(ring)
        shard[list(ring)] += range(len(ring))
    return shard


def torus_of(mesh: Mesh) -> Torus:
  """The torus that a mesh's devices lie on.

  >>> from podscale.collectives import group_mesh
  >>> torus_of(group_mesh(jax.devices()[:1])).shard_of_device
  array([0])
  """
  return Torus(torus_rings(list(mesh.devices.flat)))


def own_shard(torus: Torus, axis_names: Sequence[str] = ALL_DEVICES) -> Shard:
  """Which shard this device has, for ops that take shards of packed trees.

  Args:
    torus: of the mesh that `shard_map` was given.
    axis_names: all axes of that mesh, in its order.

  Raises:
    ValueError: there is no such axis, or the torus is of another mesh.
  """
  axes = _axes_of(torus, axis_names)
  shards = jnp.asarray(torus.shard_of_device, jnp.int32)
  return Shard(shards[lax.axis_index(axes)], axes)


def scatter_mean(
  buffer: jax.Array,
  torus: Torus,
  axis_names: Sequence[str] = ALL_DEVICES,
) -> jax.Array:
  """Each device's shard of the mean of a buffer over all devices.

  One reduce-scatter for each dimension of the torus, along rings of neighbours:
  the first moves the buffer, the next what it has left. XLA's own over the
  whole mesh is one ring through all devices on v3, and an all-reduce of the
  whole buffer elsewhere.

  Args:
    buffer: float32 `[rows, ...]`, of this device, inside `shard_map`; rows is a
      multiple of the number of devices.
    torus: of the mesh that `shard_map` was given.
    axis_names: all axes of that mesh, in its order.

  Returns:
    float32 `[rows / devices, ...]`: shard `torus.shard_of_device[i]` on device
    i.

  Raises:
    ValueError: the buffer is not float32, its rows do not divide, it is the
      same on all devices along an axis, so that its mean would be itself, there
      is no such axis, or the torus is of another mesh.
  """
  axes, devices = _axes_of(torus, axis_names), torus.devices
  if buffer.dtype != jnp.float32 or buffer.shape[0] % devices:
    raise ValueError(
      f"scatter_mean needs float32 and rows that {devices} devices divide, got "
      f"{buffer.dtype} {buffer.shape}"
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
  """The buffer whose shards the devices have; the inverse of the scattering.

  One all-gather for each dimension of the torus. Cast the shard to bfloat16
  first where a copy to compute with is all that is needed: half the bytes.

  Args:
    shard: `[rows, ...]`, any dtype, shard `torus.shard_of_device[i]` of device
      i.
    torus: of the mesh that `shard_map` was given.
    axis_names: all axes of that mesh, in its order.

  Returns:
    `[rows * devices, ...]`, the same on all devices but typed as varying.

  Raises:
    ValueError: there is no such axis, or the torus is of another mesh.
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
      f"the torus has {torus.devices} devices, the axes {', '.join(axes)} "
      f"{lax.axis_size(axes)}; make it of this mesh: torus_of(mesh)"
    )
  return axes
