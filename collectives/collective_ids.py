"""The barriers of the remote-DMA kernels."""

from collections.abc import Sequence
from enum import IntEnum

import jax

_MOST_AXES = 4


class CollectiveId(IntEnum):
  """The first id of each kernel; a program has about 20.

  Kernels of one id share a barrier semaphore. Launches over the same devices
  may, for they follow each other in the same order on all of them. Launches
  over other devices must not: a fast one's signal would be taken for a slow
  one's.
  """

  EXCHANGE = 0
  """`EXCHANGE + 1` to `EXCHANGE + 15`, by the axes of the mesh summed over."""


def exchange_id(axes: Sequence[str]) -> int:
  """The id of an exchange over these axes, another for every set of axes.

  Raises:
    NotImplementedError: the mesh has more axes than there are ids for.
  """
  names = jax.sharding.get_abstract_mesh().axis_names
  if len(names) > _MOST_AXES:
    raise NotImplementedError(
      f"all_reduce: pallas_tpu has ids for {_MOST_AXES} mesh axes, not for the "
      f"{len(names)} of {names}"
    )
  return CollectiveId.EXCHANGE + sum(1 << names.index(axis) for axis in axes)
