"""Agreement of an op's arguments on the mesh axes that they vary over."""

from typing import Any

import jax
from jax import lax


def match_varying(*args: Any) -> tuple[Any, ...]:
  """Cast all arguments to vary over the axes that any of them varies over.

  Inside `jax.shard_map` a weight may be equal on all devices while the
  activation differs. A hand-written VJP returns the cotangent of its own
  device. With the cast outside the VJP, JAX sums the weight's cotangents over
  the devices. Outside `shard_map` this changes nothing. An argument may be
  None.
  """
  axes: set = set()
  for arg in args:
    if arg is not None:
      axes |= _varying(arg)
  return tuple(_cast(arg, axes) for arg in args)


def _varying(arg) -> set:
  return set(jax.typeof(arg).manual_axis_type.varying)


def _cast(arg, axes):
  if arg is None:
    return None
  missing = tuple(sorted(axes - _varying(arg)))
  return lax.pcast(arg, missing, to="varying") if missing else arg
