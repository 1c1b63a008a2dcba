"""Telling `shard_map` that every device has its own copy of a value."""

from collections.abc import Sequence

import jax
from jax import lax

from .mesh import ALL_DEVICES


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
  """
  return jax.tree.map(lambda leaf: _cast(leaf, axis_names), tree)


def require_varying(
  what: str, leaf: jax.Array, axis_names: str | Sequence[str], cure: str
) -> None:
  """Raises where a sum over `axis_names` would count `leaf` repeatedly."""
  missing = _missing_axes(leaf, axis_names)
  if missing and _types_are_checked(axis_names):
    raise ValueError(f"{what} is the same all along {missing}: {cure}")


def _types_are_checked(axis_names: str | Sequence[str]) -> bool:
  # With check_vma=False even a device's own index varies over nothing.
  return not _missing_axes(lax.axis_index(axis_names), axis_names)


def _missing_axes(
  leaf: jax.Array, axis_names: str | Sequence[str]
) -> tuple[str, ...]:
  """Those of `axis_names` that the type of `leaf` does not vary over."""
  if isinstance(axis_names, str):
    axis_names = (axis_names,)
  varying = jax.typeof(leaf).manual_axis_type.varying
  return tuple(name for name in axis_names if name not in varying)


def _cast(leaf: jax.Array, axis_names: str | Sequence[str]) -> jax.Array:
  missing = _missing_axes(leaf, axis_names)
  return lax.pcast(leaf, missing, to="varying") if missing else leaf
