"""Checks of the arguments of `lars_update`; the messages name the leaf."""

from collections.abc import Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
from jax.tree_util import KeyPath, keystr, tree_flatten_with_path

from ..packed.packing import Packed, Packing
from .formula import Scalar, Settings, Variant


def check_settings(settings: Settings) -> None:
  """Check that no scalar is negative and that the variant exists."""
  for name, value in settings.scalars.items():
    _check_scalar(name, value)
  if settings.variant not in get_args(Variant):
    raise ValueError(
      f"unknown variant {settings.variant!r}; expected one of "
      f"{', '.join(get_args(Variant))}"
    )


def _check_scalar(name: str, value: Scalar) -> None:
  if jnp.shape(value) != ():
    raise ValueError(f"{name} must be a scalar, got shape {jnp.shape(value)}")
  # An array may be traced, or not computed yet.
  if not isinstance(value, jax.Array) and not value >= 0:
    raise ValueError(f"{name} must not be below 0, got {value}")


def as_array(leaf: Any) -> Any:
  """Convert a leaf to an array; `describe` has shapes and dtypes instead."""
  return leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jnp.asarray(leaf)


def matching_leaves(
  name: str,
  tree: Any,
  paths: Sequence[KeyPath],
  params: Sequence[jax.Array],
  structure: jax.tree_util.PyTreeDef,
) -> list[jax.Array]:
  """Flatten `tree`, and check its structure, shapes and dtypes."""
  with_paths, its_structure = tree_flatten_with_path(tree)
  if its_structure != structure:
    raise ValueError(
      _structure_message(
        name, [path for path, _ in with_paths], paths, its_structure, structure
      )
    )
  leaves = [as_array(leaf) for _, leaf in with_paths]
  for path, leaf, param in zip(paths, leaves, params, strict=True):
    if leaf.shape != param.shape:
      raise ValueError(
        f"{name} has shape {leaf.shape} at {keystr(path)}, "
        f"params has {param.shape}"
      )
    check_floating(name, path, leaf)
  return leaves


def _structure_message(name, its_paths, paths, its_structure, structure) -> str:
  missing = [path for path in paths if path not in its_paths]
  if missing:
    return f"{name} has no leaf at {keystr(missing[0])}, params has one"
  extra = [path for path in its_paths if path not in paths]
  if extra:
    return f"{name} has a leaf at {keystr(extra[0])}, params has none"
  return f"{name} is a {its_structure}, params a {structure}"


def check_floating(name: str, path: KeyPath, leaf: jax.Array) -> None:
  """Check that a leaf has a floating-point dtype."""
  if not jnp.issubdtype(leaf.dtype, jnp.floating):
    raise ValueError(
      f"{name} at {keystr(path)} is {leaf.dtype}; "
      "lars_update takes floating-point leaves only"
    )


def check_not_packed(params: Any) -> None:
  """Check that no part is packed: its norm would cover a whole buffer."""
  for part in jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, Packed)):
    if isinstance(part, Packed):
      raise ValueError(
        "params contains a Packed; pass a single Packed to lars_update, not a "
        "pytree of Packed, and unpacked params to lars_steps"
      )


def check_packed(name: str, tree: Any, params: Packed) -> None:
  """Check that a tree is packed in the same way as the parameters."""
  if not isinstance(tree, Packed):
    raise ValueError(
      f"params are Packed, but {name} is a {type(tree).__name__}; pack it with "
      "params.packing.pack"
    )
  if tree.packing != params.packing:
    raise ValueError(_packings_message(name, tree.packing, params.packing))
  for what, buffer in (("params", params.buffer), (name, tree.buffer)):
    if buffer.shape != params.buffer.shape or buffer.dtype != jnp.float32:
      raise ValueError(
        f"{what} has a buffer of {buffer.dtype} {buffer.shape}; it must be "
        f"float32 {params.buffer.shape}"
      )


def _packings_message(name: str, its: Packing, ours: Packing) -> str:
  shapes = dict(zip(its.paths, its.shapes, strict=True))
  for path, shape in zip(ours.paths, ours.shapes, strict=True):
    if path not in shapes:
      return f"{name} has no leaf at {keystr(path)}, params has one"
    if (its_shape := shapes.pop(path)) != shape:
      return (
        f"{name} has shape {its_shape} at {keystr(path)}, params has {shape}"
      )
  for path in shapes:
    return f"{name} has a leaf at {keystr(path)}, params has none"
  return (
    f"{name} is packed in {its.rows} rows, params in {ours.rows}; pack it with "
    "params.packing.pack"
  )
