"""The order of the examples, by position.

A position counts the examples of a run from 0, over all processes and epochs.
Which example comes there is a pure function of (seed, position), so that
resuming is exact and the number of processes or threads changes nothing.
"""

import itertools
import threading
from typing import Protocol

import numpy as np

_MOST_SHARDS = 1024
_SHARD_BITS = 32


class Order(Protocol):
  """Which example comes at a position: `order[position]` is its index."""

  def __getitem__(self, position: int, /) -> int: ...


class Shuffled:
  """All examples in a new order for each epoch.

  Args:
    examples: Number of examples in an epoch.
    seed: In [0, 2**64).
    shard: In [0, 2**31); another one has other orders.

  >>> order = Shuffled(5, seed=0)
  >>> sorted(order[position] for position in range(5, 10))
  [0, 1, 2, 3, 4]
  """

  def __init__(self, examples: int, seed: int, shard: int = 0):
    self._examples = examples
    self._seed = seed
    self._shard = shard
    self._orders: dict[int, np.ndarray] = {}
    # Sorting a large epoch takes a while: one thread does it, the others wait.
    self._lock = threading.Lock()

  def __getitem__(self, position: int) -> int:
    epoch, place = divmod(position, self._examples)
    with self._lock:
      if epoch not in self._orders:
        # The last one stays: a batch may reach over an epoch's end.
        self._orders = dict(list(self._orders.items())[-1:])
        self._orders[epoch] = self._order(epoch)
      return int(self._orders[epoch][place])

  def _order(self, epoch: int) -> np.ndarray:
    # NumPy promises that raw bits stay the same in later versions; it does not
    # promise it of Generator.permutation.
    stream = self._shard << _SHARD_BITS | epoch + 1
    bits = np.random.Philox(key=[self._seed, stream])
    return np.argsort(bits.random_raw(self._examples), kind="stable")


class ShuffledInShards:
  """An order in which each row of the batches has examples of its own.

  So that a process sees the same examples in all epochs and may keep them in
  memory: the examples are cut into shards, each with so many rows of every
  batch, and a shard has its own epochs. How they are cut depends on the batch
  size alone, so the batches are the same whatever the number of processes.

  Where the shards differ in size, by one example, their epochs part: after all
  examples have come n times, some have come n times and one part in a shard's
  size more.

  Args:
    examples: Number of examples.
    seed: In [0, 2**64).
    batch_size: Images in a global batch.

  >>> order = ShuffledInShards(12, seed=0, batch_size=4)
  >>> sorted({order[4 * step] for step in range(9)})  # of the first row
  [0, 1, 2]
  """

  def __init__(self, examples: int, seed: int, batch_size: int):
    self._batch_size = batch_size
    count = _shards(examples, batch_size)
    self._rows = batch_size // count
    bounds = [examples * shard // count for shard in range(count + 1)]
    self._starts = bounds[:-1]
    self._shards = [
      Shuffled(end - start, seed, shard)
      for shard, (start, end) in enumerate(itertools.pairwise(bounds))
    ]

  def __getitem__(self, position: int) -> int:
    step, row = divmod(position, self._batch_size)
    shard, place = divmod(row, self._rows)
    return self._starts[shard] + self._shards[shard][step * self._rows + place]


def _shards(examples: int, batch_size: int) -> int:
  """The most that divide the batch, so that most process counts fit."""
  most = min(_MOST_SHARDS, examples)
  return next(n for n in range(most, 0, -1) if batch_size % n == 0)
