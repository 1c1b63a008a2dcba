"""Barrier semaphore ids of the remote-DMA kernels."""

from collections.abc import Sequence
from enum import IntEnum

import jax

_MOST_AXES = 4


class CollectiveId(IntEnum):
  """First id of each kernel; a program has about 20 ids.

  Kernels with one id share a barrier semaphore. Launches over the same set of
  devices may share it, because every device runs them in the same order.
  Launches over different sets must not: a device could take the signal of one
  launch for the signal of another.
  """

  EXCHANGE = 0
  """Base of ids 1 to 15, one for each set of mesh axes summed over."""


def exchange_id(axes: Sequence[str]) -> int:
  """Return the id of an exchange, different for each set of mesh axes.

  Args:
    axes: Names of the mesh axes summed over.

  Raises:
    NotImplementedError: The mesh has more axes than there are ids for.
  """
  names = jax.sharding.get_abstract_mesh().axis_names
  if len(names) > _MOST_AXES:
    raise NotImplementedError(
      f"all_reduce: pallas_tpu supports at most {_MOST_AXES} mesh axes, got "
      f"{len(names)}: {names}; use implementation='psum'"
    )
  return CollectiveId.EXCHANGE + sum(1 << names.index(axis) for axis in axes)
