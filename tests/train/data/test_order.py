"""Which example comes when."""

import threading

import pytest

from podscale.train.data.order import Shuffled, ShuffledInShards


def test_a_later_numpy_gives_the_same_order():
  # Recorded with NumPy 2.5.5; a run saved then must go on as it began.
  shuffled = Shuffled(10, seed=7)
  order = [shuffled[position] for position in range(20)]
  assert order[:10] == [3, 9, 1, 6, 2, 5, 4, 8, 0, 7]
  assert order[10:] == [6, 7, 8, 4, 0, 1, 5, 3, 9, 2]


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


@pytest.mark.parametrize("batch_size", [1, 4, 6, 16])
def test_a_row_has_examples_of_its_own(batch_size):
  # 24 examples are shards of 24, 6, 4 and 1 or 2.
  order = ShuffledInShards(24, seed=3, batch_size=batch_size)
  steps = 48 // batch_size
  rows = [
    {order[batch_size * step + row] for step in range(steps)}
    for row in range(batch_size)
  ]
  assert set.union(*rows) == set(range(24))
  assert sum(map(len, rows)) == 24


def test_an_epoch_in_shards_has_each_example_once_in_a_new_order():
  order = ShuffledInShards(24, seed=3, batch_size=8)
  epochs = [
    [order[position] for position in range(24 * epoch, 24 * (epoch + 1))]
    for epoch in range(3)
  ]
  for epoch in epochs:
    assert sorted(epoch) == list(range(24))
  assert len(set(map(tuple, epochs))) == 3


def test_the_examples_of_a_process_are_its_share():
  examples, batch_size, processes = 1_000, 64, 8
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


def test_fewer_examples_than_rows():
  order = ShuffledInShards(3, seed=0, batch_size=8)
  # Two shards, of one and two examples, with four rows each.
  assert [order[position] for position in range(4)] == [0, 0, 0, 0]
  assert sorted(order[position] for position in range(4, 8)) == [1, 1, 2, 2]
