"""The map over all cores, in order."""

import threading

import pytest

from podscale.train.data.loading.parallel import map_in_threads
from podscale.train.data.loading.prefetch import cores

MOST = 4 * cores() + 1  # items under way


def test_results_come_in_the_order_of_the_items():
  first = threading.Event()

  def slow_first(item):
    if item == 0:
      first.wait(60)
    if item == 1:
      first.set()
    return item

  # With one core the second item would wait for the first.
  if cores() == 1:
    first.set()
  assert list(map_in_threads(slow_first, range(100))) == list(range(100))


def test_only_a_few_items_are_taken_ahead():
  taken = []
  results = map_in_threads(str, (taken.append(i) or i for i in range(1000)))
  for i in range(10):
    assert next(results) == str(i)
    assert len(taken) <= i + 1 + MOST
  results.close()
  assert len(taken) <= 10 + MOST


def test_an_error_is_raised_in_its_turn_and_ends_the_rest():
  begun = []

  def fails_at_5(item):
    begun.append(item)
    if item == 5:
      raise ValueError("five")
    return item

  results = map_in_threads(fails_at_5, range(1000))
  assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
  with pytest.raises(ValueError, match="five"):
    next(results)
  assert len(begun) <= 6 + MOST


def test_nothing_to_do():
  assert list(map_in_threads(str, [])) == []
