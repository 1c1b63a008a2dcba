"""Order of the examples.

A position counts the examples of a run from 0, over all processes and epochs.
The example at a position is a pure function of (seed, position), so resuming is
exact, and the number of processes or threads changes nothing.
"""

import abc
import threading
from typing import Protocol

import numpy as np

_MOST_SHARDS = 1024


class Order(Protocol):
  """An order of examples: `order[position]` is the index of the example."""

  def __getitem__(self, position: int, /) -> int: ...


class _EpochOrder(abc.ABC):
  """An order computed for one epoch at a time."""

  def __init__(self, examples: int, seed: int):
    self._examples = examples
    self._seed = seed
    self._orders: dict[int, np.ndarray] = {}
    # Sorting a large epoch takes long, so one thread sorts and the others wait.
    self._lock = threading.Lock()

  def __getitem__(self, position: int) -> int:
    epoch, place = divmod(position, self._examples)
    with self._lock:
      if epoch not in self._orders:
        # Keep the epoch before, because a batch may cross the epoch's end.
        self._orders = dict(list(self._orders.items())[-1:])
        self._orders[epoch] = self._order(epoch)
      return int(self._orders[epoch][place])

  @abc.abstractmethod
  def _order(self, epoch: int) -> np.ndarray:
    """Compute the order of an epoch: the index at each place."""

  def _shuffle(self, epoch: int) -> np.ndarray:
    """Draw a permutation of the examples."""
    # NumPy guarantees stable raw bits across versions, but not a stable
    # Generator.permutation.
    bits = np.random.Philox(key=[self._seed, epoch + 1])
    return np.argsort(bits.random_raw(self._examples), kind="stable")


class Shuffled(_EpochOrder):
  """An order that shuffles all examples in each epoch.

  Args:
    examples: Number of examples in an epoch.
    seed: Seed in [0, 2**64).

  >>> order = Shuffled(5, seed=0)
  >>> sorted(order[position] for position in range(5, 10))
  [0, 1, 2, 3, 4]
  """

  def _order(self, epoch: int) -> np.ndarray:
    return self._shuffle(epoch)


class ShuffledInShards(_EpochOrder):
  """A shuffled order in which each row of the batches keeps its examples.

  A process reads the same examples in all epochs and may keep them in memory.
  The examples are divided into shards, and each shard owns the same few rows of
  every batch. The division depends on the batch size alone, so the batches are
  the same for any number of processes.

  Every example comes exactly once in an epoch. If an epoch is no whole number
  of batches, some shards have more examples than rows in it and others fewer.
  The last few examples of the former then move to rows of the latter: at most
  `batch_size` different examples over all epochs. In a data set of about that
  size, most examples move.

  Args:
    examples: Number of examples in an epoch.
    seed: Seed in [0, 2**64).
    batch_size: Images in a global batch.

  >>> order = ShuffledInShards(12, seed=0, batch_size=4)
  >>> sorted(order[4 * step] for step in range(3))  # of the first row
  [0, 1, 2]
  """

  def __init__(self, examples: int, seed: int, batch_size: int):
    super().__init__(examples, seed)
    self._batch_size = batch_size
    self._shards = _count_shards(examples, batch_size)
    index = np.arange(examples)
    bounds = examples * np.arange(self._shards + 1) // self._shards
    self._sizes = np.diff(bounds)
    # A stable sort of 16-bit integers takes a tenth of the time.
    self._home = np.repeat(
      np.arange(self._shards, dtype=np.uint16), self._sizes
    )
    self._rank = index - bounds[self._home]

  def _order(self, epoch: int) -> np.ndarray:
    positions = np.arange(self._examples) + epoch * self._examples
    rows = positions % self._batch_size
    shards = (rows // (self._batch_size // self._shards)).astype(np.uint16)
    places = np.bincount(shards, minlength=self._shards)

    shuffled = self._shuffle(epoch)
    homes = self._home[shuffled]
    moves = self._rank[shuffled] >= places[homes]
    free = np.maximum(places - self._sizes, 0)
    homes[moves] = np.repeat(np.arange(self._shards), free)

    order = np.empty(self._examples, np.int64)
    order[np.argsort(shards, kind="stable")] = shuffled[
      np.argsort(homes, kind="stable")
    ]
    return order


def _count_shards(examples: int, batch_size: int) -> int:
  """Find the largest number of shards that divides the batch size."""
  most = min(_MOST_SHARDS, examples)
  return next(n for n in range(most, 0, -1) if batch_size % n == 0)
