"""Telling `shard_map` that every device has its own copy of a value."""

from collections.abc import Sequence

import jax
from jax import lax

from .mesh import ALL_DEVICES


def mesh_axes(axis_names: str | Sequence[str]) -> tuple[str, ...]:
  """The axes as a tuple.

  Raises:
    ValueError: one of them is not an axis of the `shard_map` around.
  """
  axes = (axis_names,) if isinstance(axis_names, str) else tuple(axis_names)
  mesh = jax.sharding.get_abstract_mesh()
  missing = [axis for axis in axes if axis not in mesh.manual_axes]
  if missing:
    raise ValueError(
      f"no mesh axis {', '.join(missing)} here; inside this shard_map are: "
      f"{', '.join(mesh.manual_axes) or 'none'}"
    )
  return axes


def device_varying[Tree](
  tree: Tree, axis_names: str | Sequence[str] = ALL_DEVICES
) -> Tree:
  """Types every leaf as varying over `axis_names`; values stay as they are.

  Under `shard_map` with `check_vma=True` the gradient of a value that is equal
  on all devices is summed over the devices by JAX, with one all-reduce per
  parameter and use. Cast the parameters with this first, differentiate with
  respect to the result, and reduce once, with `mean_gradients`. Where types
  are not checked (`check_vma=False`) this does nothing.

  Args:
    tree: any pytree of arrays, inside `shard_map`.
    axis_names: one mesh axis or several.

  Returns:
    The same pytree; each leaf varies over `axis_names`, and over whatever it
    varied over before.

  Raises:
    ValueError: there is no such axis.
  """
  axes = mesh_axes(axis_names)
  return jax.tree.map(lambda leaf: _cast(leaf, axes), tree)


def require_varying(
  what: str, leaf: jax.Array, axis_names: str | Sequence[str], cure: str
) -> None:
  """Raises where a sum over `axis_names` would count `leaf` repeatedly."""
  axes = mesh_axes(axis_names)
  missing = _missing_axes(leaf, axes)
  if missing and _types_are_checked(axes):
    raise ValueError(f"{what} is the same all along {missing}: {cure}")


def _types_are_checked(axes: tuple[str, ...]) -> bool:
  # With check_vma=False even a device's own index varies over nothing.
  return not _missing_axes(lax.axis_index(axes), axes)


def _missing_axes(leaf: jax.Array, axes: tuple[str, ...]) -> tuple[str, ...]:
  """Those of `axes` that the type of `leaf` does not vary over."""
  varying = jax.typeof(leaf).manual_axis_type.varying
  return tuple(axis for axis in axes if axis not in varying)


def _cast(leaf: jax.Array, axes: tuple[str, ...]) -> jax.Array:
  missing = _missing_axes(leaf, axes)
  return lax.pcast(leaf, missing, to="varying") if missing else leaf
