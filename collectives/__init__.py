"""Collectives for `jax.shard_map` programs on a ('group', 'member') mesh.

Batch-norm moments are reduced within a group; gradients, running statistics
and evaluation sums are reduced over all devices. All functions need only jax
and numpy, and work under `jit`, `grad` and `shard_map` with `check_vma=True`.
"""

from .evaluation import EvaluationSums, EvaluationTotals, evaluation_sums
from .gradients import mean_gradients
from .mesh import ALL_DEVICES, GROUP, MEMBER, group_mesh, group_size_for
from .moments import group_moments
from .reduction import all_reduce
from .running_statistics import merge_running_statistics
from .shards import (
  Torus,
  gather_shards,
  own_shard,
  scatter_mean,
  torus_of,
)
from .varying import device_varying

__all__ = [
  "ALL_DEVICES",
  "GROUP",
  "MEMBER",
  "EvaluationSums",
  "EvaluationTotals",
  "Torus",
  "all_reduce",
  "device_varying",
  "evaluation_sums",
  "gather_shards",
  "group_mesh",
  "group_moments",
  "group_size_for",
  "mean_gradients",
  "merge_running_statistics",
  "own_shard",
  "scatter_mean",
  "torus_of",
]
