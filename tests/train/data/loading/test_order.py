"""Orders of the examples."""

import threading
import zlib

import numpy as np
import pytest

from podscale.train.data.loading.order import Shuffled, ShuffledInShards


def test_a_later_numpy_gives_the_same_order():
  # Recorded with NumPy 2.5.5; a run saved then must go on as it began.
  shuffled = Shuffled(10, seed=7)
  order = [shuffled[position] for position in range(20)]
  assert order[:10] == [3, 9, 1, 6, 2, 5, 4, 8, 0, 7]
  assert order[10:] == [6, 7, 8, 4, 0, 1, 5, 3, 9, 2]


def test_a_later_numpy_gives_the_same_order_in_shards():
  # Recorded with NumPy 2.5.5. The sorts must be stable, which small sets do not
  # show.
  order = ShuffledInShards(1000, seed=7, batch_size=96)
  examples = np.array([order[position] for position in range(2000)], np.int32)
  assert examples[:6].tolist() == [874, 582, 28, 655, 44, 926]
  assert zlib.crc32(examples.tobytes()) == 4145059087


def test_positions_are_asked_in_any_order_and_by_many_threads():
  want = [Shuffled(7, seed=1)[position] for position in range(70)]
  shuffled = Shuffled(7, seed=1)
  got: dict[int, int] = {}

  def ask(positions):
    for position in positions:
      got[position] = shuffled[position]

  threads = [
    threading.Thread(target=ask, args=(range(69 - i, -1, -8),))
    for i in range(8)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert [got[position] for position in range(70)] == want


def epoch_of(order, examples, epoch):
  start = examples * epoch
  return [order[position] for position in range(start, start + examples)]


def homes(examples, batch_size):
  """Compute the shard of each row of a batch and of each example."""
  shards = next(
    n for n in range(min(1024, examples), 0, -1) if batch_size % n == 0
  )
  rows = np.arange(batch_size) * shards // batch_size
  sizes = np.diff(np.arange(shards + 1) * examples // shards)
  return rows, np.repeat(np.arange(shards), sizes)


def moved(examples, batch_size, epoch, order):
  """List the examples of an epoch that are in rows of other shards."""
  rows, home = homes(examples, batch_size)
  return {
    example
    for place, example in enumerate(order)
    if rows[(examples * epoch + place) % batch_size] != home[example]
  }


@pytest.mark.parametrize("batch_size", [1, 4, 6, 24])
def test_a_row_has_examples_of_its_own(batch_size):
  # 24 examples are whole batches, in shards of 24, 6, 4 and 1.
  order = ShuffledInShards(24, seed=3, batch_size=batch_size)
  steps = 48 // batch_size
  rows = [
    {order[batch_size * step + row] for step in range(steps)}
    for row in range(batch_size)
  ]
  assert set.union(*rows) == set(range(24))
  assert sum(map(len, rows)) == 24


# 300 by 256 is a small set with data.cache. The others: fewer examples than
# rows, one example, and 47, whose only divisors are 1 and itself.
@pytest.mark.parametrize(
  "examples, batch_size",
  [(10, 3), (24, 8), (1_000, 64), (300, 256), (3, 8), (1, 8), (90, 47)],
)
def test_each_example_comes_once_an_epoch(examples, batch_size):
  order = ShuffledInShards(examples, seed=3, batch_size=batch_size)
  epochs = [epoch_of(order, examples, e) for e in range(batch_size + 1)]
  for epoch in epochs:
    assert sorted(epoch) == list(range(examples))
  if examples > 9:
    assert len(set(map(tuple, epochs))) == len(epochs)


@pytest.mark.parametrize(
  "examples, batch_size", [(1_000, 64), (300, 256), (3, 8), (2_000, 96)]
)
def test_a_batch_of_examples_at_most_leaves_its_rows(examples, batch_size):
  """At most a quarter of a batch moves, and one example for each shard.

  In an epoch of n batches and a share f of another, a shard with all its rows
  in that share takes 1 - f of its rows from the shards that have none there.
  """
  order = ShuffledInShards(examples, seed=0, batch_size=batch_size)
  shards = homes(examples, batch_size)[0][-1] + 1
  ever = set()
  for epoch in range(2 * batch_size):
    move = moved(examples, batch_size, epoch, epoch_of(order, examples, epoch))
    assert len(move) <= batch_size / 4 + shards
    ever |= move
  assert len(ever) <= batch_size


def test_the_examples_of_a_process_are_its_share():
  examples, batch_size, processes = 1_024, 64, 8
  order = ShuffledInShards(examples, seed=0, batch_size=batch_size)
  share = batch_size // processes
  seen = [
    {
      order[batch_size * step + row]
      for step in range(60)
      for row in range(process * share, (process + 1) * share)
    }
    for process in range(processes)
  ]
  assert [len(s) for s in seen] == [examples // processes] * processes
  assert set.union(*seen) == set(range(examples))


@pytest.mark.parametrize("processes", [1, 2, 8, 256])
def test_a_small_set_kept_in_memory_comes_whole_on_any_processes(processes):
  """In a first version, 212 of 300 examples came seven times in seven steps."""
  labels = [[] for _ in range(processes)]
  for process in range(processes):
    order = ShuffledInShards(300, seed=0, batch_size=256)
    share = 256 // processes
    for step in range(7):
      start = 256 * step + share * process
      labels[process].append([order[start + row] for row in range(share)])
  batches = [sum((part[step] for part in labels), []) for step in range(7)]
  run = sum(batches, [])
  whole = ShuffledInShards(300, seed=0, batch_size=256)
  assert run == [whole[position] for position in range(7 * 256)]
  counts = np.bincount(run, minlength=300)
  # 1,792 positions are five epochs and 292 of a sixth.
  assert sorted(set(counts)) == [5, 6]
  assert np.sum(counts == 6) == 292
