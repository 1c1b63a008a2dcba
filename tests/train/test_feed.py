"""Batches put on the devices ahead of the step."""

import threading
import time

import jax.numpy as jnp
import pytest

from podscale.train.feed import DataWait, Feed


class Counted:
  """Batches that are numbers, with their state."""

  def __init__(self, end=None, seconds=0.0):
    self.made = 0
    self._end = end
    self._seconds = seconds

  def __iter__(self):
    return self

  def __next__(self):
    if self.made == self._end:
      raise RuntimeError(f"broken after {self.made}")
    time.sleep(self._seconds)
    self.made += 1
    return {"label": self.made}

  def state(self):
    return {"position": self.made}


def wait_until(done):
  end = time.monotonic() + 30
  while not done():
    assert time.monotonic() < end
    time.sleep(0.005)


def feed_threads():
  return [t for t in threading.enumerate() if t.name == "podscale-feed"]


def test_two_are_ready_and_one_in_hand():
  batches = Counted()
  feed = Feed(batches, lambda batch: batch)
  wait_until(lambda: batches.made == 3)
  time.sleep(0.2)
  assert batches.made == 3
  assert next(feed) == {"label": 1}
  wait_until(lambda: batches.made == 4)
  feed.close()


def test_the_state_is_that_of_what_was_handed_out():
  batches = Counted()
  feed = Feed(batches, lambda batch: batch)
  assert feed.state() == {"position": 0}
  for number in range(1, 5):
    assert next(feed) == {"label": number}
    assert feed.state() == {"position": number}
  feed.close()


def test_a_failure_comes_at_its_turn():
  feed = Feed(Counted(end=2), lambda batch: batch)
  assert [next(feed)["label"] for _ in range(2)] == [1, 2]
  with pytest.raises(RuntimeError, match="broken after 2"):
    next(feed)
  feed.close()
  assert not feed_threads()


@pytest.mark.timeout(60)
def test_closing_ends_the_thread_that_waits_for_room():
  batches = Counted()
  feed = Feed(batches, lambda batch: batch)
  wait_until(lambda: batches.made == 3)
  feed.close()
  assert not feed_threads()
  assert batches.made == 3


def test_only_waiting_with_idle_devices_counts():
  class Busy:
    def is_ready(self):
      return False

  feed = Feed(Counted(seconds=0.05), lambda batch: batch)
  wait = DataWait()
  for _ in range(4):
    wait.next(feed, Busy())
  assert wait.seconds == 0
  for _ in range(4):
    wait.next(feed, jnp.zeros(()))
  assert wait.seconds > 0.05
  feed.close()
