"""Input of a run: batches of its images, on their way to the devices."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ..collectives import ALL_DEVICES
from .data import (
  Batch,
  EvalBatches,
  Order,
  Shuffled,
  ShuffledInShards,
  Skips,
  TrainBatches,
  eval_batches,
  train_batches,
)
from .data.loading.device_prefetch import DeviceBatch, DevicePrefetch
from .settings.config import Config
from .setup import Run


def open_train_batches(config: Config, run: Run, skips: Skips) -> TrainBatches:
  """Open this process's share of the training batches.

  Args:
    config: Settings of the run.
    run: Data and devices of the run.
    skips: Record of the images that are left out.
  """
  return train_batches(
    run.train_source,
    batch_size=config.batch_size,
    resolution=run.resolution,
    seed=config.seed,
    crop=config.data.crop,
    flip=config.data.flip,
    policy=run.policy,
    augment_later=config.data.augment_on == "device",
    order=_order(config, run),
    skips=skips,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )


def open_eval_batches(run: Run, skips: Skips) -> EvalBatches:
  """Open this process's share of the test batches.

  Args:
    run: Data and devices of the run.
    skips: Record of the images that are left out.
  """
  return eval_batches(
    run.test_source,
    batch_size=run.eval_batch_size,
    resolution=run.resolution,
    skips=skips,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )


def prefetch(
  batches: Iterator[Batch],
  mesh: Mesh,
  state: Callable[[], dict[str, Any]] = dict,
) -> DevicePrefetch:
  """Copy batches to the devices ahead of the steps, in a thread.

  Args:
    batches: Batches of this process.
    mesh: Devices, from `collectives.group_mesh`.
    state: Function that returns the position of `batches`.
  """
  return DevicePrefetch(batches, lambda batch: to_devices(batch, mesh), state)


def to_devices(batch: Batch, mesh: Mesh) -> DeviceBatch:
  """Split this process's share of a batch over its devices."""
  sharding = NamedSharding(mesh, P(ALL_DEVICES))
  return {
    name: jax.make_array_from_process_local_data(sharding, array)
    for name, array in batch.items()
  }


def _order(config: Config, run: Run) -> Order:
  examples = len(run.train_source)
  if config.data.cache:
    return ShuffledInShards(examples, config.seed, config.batch_size)
  return Shuffled(examples, config.seed)
