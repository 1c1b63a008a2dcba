"""Batches put on the devices ahead of the step."""

import contextlib
import os
import signal
import threading
import time

import jax.numpy as jnp
import pytest

from podscale.train.data.loading import device_prefetch as feed_module
from podscale.train.data.loading.device_prefetch import (
  DataWait,
  Feed,
  next_batch,
)
from podscale.train.processes.signals import Stop


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

  def close(self):
    self.closed = True


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
  feed = Feed(batches, lambda batch: batch, batches.state)
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
  assert batches.closed
  assert not feed_threads()
  assert batches.made == 3


def test_it_is_raised_again_and_not_waited_for():
  feed = Feed(Counted(end=0), lambda batch: batch)
  for _ in range(2):
    with pytest.raises(RuntimeError, match="broken after 0"):
      next(feed)
  feed.close()


@pytest.mark.timeout(60)
def test_batches_that_end_end_the_feed():
  feed = Feed((batch for batch in [{"label": 1}]), lambda batch: batch)
  assert list(feed) == [{"label": 1}]
  assert list(feed) == []
  feed.close()


@pytest.mark.timeout(60)
def test_closing_leaves_a_thread_that_hangs(monkeypatch):
  monkeypatch.setattr(feed_module, "_CLOSE_SECONDS", 0.1)
  batches, goes_on = Counted(), threading.Event()
  feed = Feed(batches, lambda batch: goes_on.wait())
  feed.close()
  assert feed_threads() and not hasattr(batches, "closed")
  goes_on.set()
  wait_until(lambda: not feed_threads())


@pytest.mark.timeout(60)
def test_a_stop_comes_before_a_batch_that_does_not():
  goes_on, stop = threading.Event(), Stop()
  feed = Feed(Counted(), lambda batch: goes_on.wait() and batch)
  stop.listen()
  with contextlib.closing(stop):
    os.kill(os.getpid(), signal.SIGTERM)
    assert next_batch(feed, stop) is None
  goes_on.set()
  assert next(feed) == {"label": 1}
  feed.close()


def test_only_waiting_with_idle_devices_counts():
  class Busy:
    def is_ready(self):
      return False

  feed = Feed(Counted(seconds=0.05), lambda batch: batch)
  wait = DataWait()
  for _ in range(4):
    wait.next(feed, Stop(), Busy())
  assert wait.seconds == 0
  for _ in range(4):
    wait.next(feed, Stop(), jnp.zeros(()))
  assert wait.seconds > 0.05
  feed.close()
