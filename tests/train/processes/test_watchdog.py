"""What takes too long is said, with every thread's stack."""

import threading
import time

import pytest

from podscale.train.processes.watchdog import Watch


class Said(list):
  """What was said, and a way to wait for it."""

  def __init__(self):
    self._more = threading.Semaphore(0)

  def __call__(self, text):
    self.append(text)
    self._more.release()

  def wait(self):
    assert self._more.acquire(timeout=30)


@pytest.fixture
def said():
  return Said()


def usual(watch, what, seconds=0.001):
  for _ in range(2):
    with watch.over(what):
      time.sleep(seconds)


def test_what_hangs_is_said_with_the_stack_of_each_thread(said):
  def wait_for_ever(event):
    event.wait()

  event = threading.Event()
  thread = threading.Thread(
    target=wait_for_ever, args=(event,), name="the-reader"
  )
  thread.start()
  with Watch(said, least_seconds=0.2) as watch:
    usual(watch, "waiting for images")
    with watch.over("waiting for images"):
      said.wait()
    event.set()
  thread.join()
  line, *stacks = said[0].splitlines()
  assert line.startswith("waiting for images takes 0 s so far, 0.0 s at most")
  assert "the-reader:" in stacks
  assert "MainThread:" in stacks
  assert any("in wait_for_ever" in stack for stack in stacks)
  assert not any("_look_on" in stack for stack in stacks)


def test_it_is_said_again_when_the_time_has_doubled(said):
  with Watch(said, least_seconds=0.2) as watch:
    usual(watch, "a step")
    begin = time.monotonic()
    with watch.over("a step"):
      said.wait()
      said.wait()
    assert time.monotonic() - begin > 0.4
  assert len(said) == 2


def test_five_times_the_longest_is_not_too_long_yet(said):
  with Watch(said, least_seconds=0.01) as watch:
    usual(watch, "a step", seconds=0.2)
    with watch.over("a step"):
      time.sleep(0.5)
    assert said == []
    with watch.over("a step"):
      said.wait()


def test_the_first_of_a_kind_has_longer_and_is_no_measure(said):
  with Watch(said, least_seconds=0.1, first_seconds=2.0) as watch:
    usual(watch, "a step")
    with watch.over("evaluation"):
      time.sleep(0.3)
    with watch.over("evaluation"):
      time.sleep(0.3)
    assert said == []
    with watch.over("saving"):
      said.wait()
  assert said[0].startswith("saving takes 2 s so far; every thread is at:")
