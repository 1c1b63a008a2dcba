"""The order of the examples, by position.

A position counts the examples of a run from 0, over all processes and epochs.
Which example comes there is a pure function of (seed, position), so that
resuming is exact and the number of processes or threads changes nothing.
"""

import abc
import threading
from typing import Protocol

import numpy as np

_MOST_SHARDS = 1024


class Order(Protocol):
  """Which example comes at a position: `order[position]` is its index."""

  def __getitem__(self, position: int, /) -> int: ...


class _EpochOrder(abc.ABC):
  """An order that is made for a whole epoch at a time."""

  def __init__(self, examples: int, seed: int):
    self._examples = examples
    self._seed = seed
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

  @abc.abstractmethod
  def _order(self, epoch: int) -> np.ndarray:
    """Arrange the examples of an epoch."""

  def _shuffle(self, epoch: int) -> np.ndarray:
    """Draw a permutation of the examples."""
    # NumPy promises that raw bits stay the same in later versions; it does not
    # promise it of Generator.permutation.
    bits = np.random.Philox(key=[self._seed, epoch + 1])
    return np.argsort(bits.random_raw(self._examples), kind="stable")


class Shuffled(_EpochOrder):
  """All examples in a new order for each epoch.

  Args:
    examples: Number of examples in an epoch.
    seed: In [0, 2**64).

  >>> order = Shuffled(5, seed=0)
  >>> sorted(order[position] for position in range(5, 10))
  [0, 1, 2, 3, 4]
  """

  def _order(self, epoch: int) -> np.ndarray:
    return self._shuffle(epoch)


class ShuffledInShards(_EpochOrder):
  """A shuffled order in which each row of the batches keeps its examples.

  A process then reads the same examples in all epochs, and may keep them in
  memory. The examples are cut into shards, and each shard has the same few
  rows of every batch. How they are cut depends on the batch size alone, so the
  batches are the same for any number of processes.

  Every example comes exactly once in an epoch. Where an epoch is no whole
  number of batches, some shards have fewer rows in it than examples and others
  more, so the last few examples of the former come in rows of the latter: at
  most `batch_size` different ones over all epochs. Of a set as small as that,
  most examples do.

  Args:
    examples: Number of examples in an epoch.
    seed: In [0, 2**64).
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
    # NumPy sorts 16-bit integers, stably, in a tenth of the time.
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
  """Find the most that divide the batch, so that most process counts fit."""
  most = min(_MOST_SHARDS, examples)
  return next(n for n in range(most, 0, -1) if batch_size % n == 0)
