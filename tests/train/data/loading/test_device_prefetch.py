"""Batches copied to the devices ahead of the step."""

import contextlib
import os
import signal
import threading
import time

import jax.numpy as jnp
import pytest

from podscale.train.data.loading import device_prefetch
from podscale.train.data.loading.device_prefetch import (
  DataWait,
  DevicePrefetch,
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


def prefetch_threads():
  return [
    t for t in threading.enumerate() if t.name == "podscale-device-prefetch"
  ]


def test_two_are_ready_and_one_in_hand():
  batches = Counted()
  prefetch = DevicePrefetch(batches, lambda batch: batch)
  wait_until(lambda: batches.made == 3)
  time.sleep(0.2)
  assert batches.made == 3
  assert next(prefetch) == {"label": 1}
  wait_until(lambda: batches.made == 4)
  prefetch.close()


def test_the_state_is_that_of_what_was_handed_out():
  batches = Counted()
  prefetch = DevicePrefetch(batches, lambda batch: batch, batches.state)
  assert prefetch.state() == {"position": 0}
  for number in range(1, 5):
    assert next(prefetch) == {"label": number}
    assert prefetch.state() == {"position": number}
  prefetch.close()


def test_a_failure_comes_at_its_turn():
  prefetch = DevicePrefetch(Counted(end=2), lambda batch: batch)
  assert [next(prefetch)["label"] for _ in range(2)] == [1, 2]
  with pytest.raises(RuntimeError, match="broken after 2"):
    next(prefetch)
  prefetch.close()
  assert not prefetch_threads()


@pytest.mark.timeout(60)
def test_closing_ends_the_thread_that_waits_for_room():
  batches = Counted()
  prefetch = DevicePrefetch(batches, lambda batch: batch)
  wait_until(lambda: batches.made == 3)
  prefetch.close()
  assert batches.closed
  assert not prefetch_threads()
  assert batches.made == 3


def test_it_is_raised_again_and_not_waited_for():
  prefetch = DevicePrefetch(Counted(end=0), lambda batch: batch)
  for _ in range(2):
    with pytest.raises(RuntimeError, match="broken after 0"):
      next(prefetch)
  prefetch.close()


@pytest.mark.timeout(60)
def test_batches_that_end_end_the_feed():
  prefetch = DevicePrefetch(
    (batch for batch in [{"label": 1}]), lambda batch: batch
  )
  assert list(prefetch) == [{"label": 1}]
  assert list(prefetch) == []
  prefetch.close()


@pytest.mark.timeout(60)
def test_closing_leaves_a_thread_that_hangs(monkeypatch):
  monkeypatch.setattr(device_prefetch, "_CLOSE_SECONDS", 0.1)
  batches, goes_on = Counted(), threading.Event()
  prefetch = DevicePrefetch(batches, lambda batch: goes_on.wait())
  prefetch.close()
  assert prefetch_threads() and not hasattr(batches, "closed")
  goes_on.set()
  wait_until(lambda: not prefetch_threads())


@pytest.mark.timeout(60)
def test_a_stop_comes_before_a_batch_that_does_not():
  goes_on, stop = threading.Event(), Stop()
  prefetch = DevicePrefetch(Counted(), lambda batch: goes_on.wait() and batch)
  stop.listen()
  with contextlib.closing(stop):
    os.kill(os.getpid(), signal.SIGTERM)
    assert next_batch(prefetch, stop) is None
  goes_on.set()
  assert next(prefetch) == {"label": 1}
  prefetch.close()


def test_only_waiting_with_idle_devices_counts():
  class Busy:
    def is_ready(self):
      return False

  prefetch = DevicePrefetch(Counted(seconds=0.05), lambda batch: batch)
  wait = DataWait()
  for _ in range(4):
    wait.next(prefetch, Stop(), Busy())
  assert wait.seconds == 0
  for _ in range(4):
    wait.next(prefetch, Stop(), jnp.zeros(()))
  assert wait.seconds > 0.05
  prefetch.close()
