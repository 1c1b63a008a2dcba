"""Times of a step's collectives on the devices at hand."""

from typing import Any

import jax
import numpy as np

from ...collectives import group_mesh
from ..workloads.collectives import model_sizes, step_parts
from .difference import relative_difference
from .timing import compile_and_time


def time_collectives(
  model: str, *, group_size: int, runs: int
) -> list[dict[str, Any]]:
  """Time each part on all devices.

  Args:
    model: Member of the family.
    group_size: Devices in a batch-norm group.
    runs: Number of timed runs of each part.

  Returns:
    A row for each part: its collectives and their bytes in the compiled
    program; the largest `relative_difference` to the first implementation of
    the part; times and memory.
  """
  mesh = group_mesh(group_size=group_size)
  rows: list[dict[str, Any]] = []
  firsts: dict[str, Any] = {}
  for part in step_parts(model_sizes(model), mesh):
    args = [jax.device_put(_random(x), x.sharding) for x in part.args]
    timing = compile_and_time(part.function, *args, runs=runs)
    result = part.tree(jax.tree.map(lambda x: x[0], timing.first))
    first = firsts.setdefault(part.name.partition(":")[0], result)
    difference = relative_difference(first, result)
    rows.append({**part.counted(), "difference": difference, **timing.row()})
  return rows


def _random(x: jax.ShapeDtypeStruct) -> np.ndarray:
  """Draw numbers in [0, 2); for integer dtypes 0 or 1."""
  return np.random.default_rng(0).uniform(0, 2, x.shape).astype(x.dtype)
