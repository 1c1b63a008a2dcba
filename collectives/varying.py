"""Types of `shard_map`: values that vary over mesh axes."""

from collections.abc import Sequence

import jax
from jax import lax

from .mesh import ALL_DEVICES


def mesh_axes(axis_names: str | Sequence[str]) -> tuple[str, ...]:
  """Return the axis names as a tuple.

  Raises:
    ValueError: A name is not an axis of the enclosing `shard_map`.
  """
  axes = (axis_names,) if isinstance(axis_names, str) else tuple(axis_names)
  mesh = jax.sharding.get_abstract_mesh()
  missing = [axis for axis in axes if axis not in mesh.manual_axes]
  if missing:
    raise ValueError(
      f"unknown mesh axis {', '.join(missing)}; the axes of this shard_map: "
      f"{', '.join(mesh.manual_axes) or 'none'}"
    )
  return axes


def device_varying[Tree](
  tree: Tree, axis_names: str | Sequence[str] = ALL_DEVICES
) -> Tree:
  """Type every leaf as varying over `axis_names`, without changing values.

  Under `shard_map` with `check_vma=True` JAX sums the gradient of a value that
  is equal on all devices over the devices, with one all-reduce per parameter
  and use. To reduce once, cast the parameters with this function, differentiate
  with respect to the result, and call `mean_gradients`. With `check_vma=False`
  this function does nothing.

  Args:
    tree: Pytree of arrays, inside `shard_map`.
    axis_names: Mesh axis, or axes.

  Returns:
    Same pytree; each leaf varies over `axis_names` in addition to the axes it
    varied over before.

  Raises:
    ValueError: A name is not a mesh axis.

  >>> from podscale.collectives import group_mesh
  >>> mesh = group_mesh(jax.devices()[:1])
  >>> P = jax.sharding.PartitionSpec
  >>> copies = jax.shard_map(
  ...   device_varying, mesh=mesh, in_specs=P(), out_specs=P(ALL_DEVICES)
  ... )
  >>> print(copies(jax.numpy.ones(2)))  # one copy for each device
  [1. 1.]
  """
  axes = mesh_axes(axis_names)
  return jax.tree.map(lambda leaf: _cast(leaf, axes), tree)


def require_varying(
  what: str, leaf: jax.Array, axis_names: str | Sequence[str], cure: str
) -> None:
  """Raise ValueError if a sum over `axis_names` would count `leaf` repeatedly.

  Args:
    what: Name of the leaf in the message.
    leaf: Array that the caller sums.
    axis_names: Mesh axis, or axes, to sum over.
    cure: End of the message: what the caller should do instead.
  """
  axes = mesh_axes(axis_names)
  missing = _missing_axes(leaf, axes)
  if missing and _types_are_checked(axes):
    raise ValueError(
      f"{what} is the same on all devices along {missing}; {cure}"
    )


def _types_are_checked(axes: tuple[str, ...]) -> bool:
  # With check_vma=False even a device's own index varies over nothing.
  return not _missing_axes(lax.axis_index(axes), axes)


def _missing_axes(leaf: jax.Array, axes: tuple[str, ...]) -> tuple[str, ...]:
  """Return the axes that the type of `leaf` does not vary over."""
  varying = jax.typeof(leaf).manual_axis_type.varying
  return tuple(axis for axis in axes if axis not in varying)


def _cast(leaf: jax.Array, axes: tuple[str, ...]) -> jax.Array:
  missing = _missing_axes(leaf, axes)
  return lax.pcast(leaf, missing, to="varying") if missing else leaf
