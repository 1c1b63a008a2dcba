"""Reports about work that takes too long."""

import threading

import pytest

from podscale.train.processes.watchdog import Watchdog


class Clock:
  """Clock that a test moves."""

  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


@pytest.fixture
def clock():
  return Clock()


@pytest.fixture
def reports():
  return []


@pytest.fixture
def watchdog(clock, reports):
  """Watchdog without its thread; the tests call `check`."""
  return Watchdog(
    reports.append, least_seconds=60, first_seconds=1800, clock=clock
  )


def work(watchdog, clock, name, *seconds):
  """Do work of these durations; check before each ends."""
  for each in seconds:
    with watchdog.watch(name):
      clock.now += each
      watchdog.check()


def test_a_minute_is_the_least_that_is_too_long(watchdog, clock, reports):
  work(watchdog, clock, "a step", 1, 1, 59.9)
  assert reports == []
  work(watchdog, clock, "saving", 1, 1, 60.1)
  (report,) = reports
  assert report.startswith("saving takes 60 s so far, at most 1.0 s before; ")


def test_five_times_the_longest_is_not_too_long_yet(watchdog, clock, reports):
  work(watchdog, clock, "a step", 1, 20, 10)
  work(watchdog, clock, "a step", 99.9)
  assert reports == []
  work(watchdog, clock, "a step", 499.4)  # five times the last one
  assert reports == []
  work(watchdog, clock, "a step", 2498)
  (report,) = reports
  assert report.startswith("a step takes 2498 s so far, at most 499.4 s before")


def test_the_report_is_repeated_when_the_time_has_doubled(
  watchdog, clock, reports
):
  work(watchdog, clock, "a step", 1, 1)
  at = []
  with watchdog.watch("a step"):
    for second in range(1, 300):
      clock.now += 1
      before = len(reports)
      watchdog.check()
      at += [second] * (len(reports) - before)
  assert at == [61, 121, 241]
  # The next step has the usual limit: five times this one.
  work(watchdog, clock, "a step", 5 * 299)
  assert len(reports) == 3


def test_the_first_of_a_name_has_longer_and_is_no_measure(
  watchdog, clock, reports
):
  work(watchdog, clock, "evaluation", 1700, 1700)
  assert reports == []
  work(watchdog, clock, "evaluation", 5 * 1700)
  assert reports == []
  work(watchdog, clock, "saving", 1801)
  (report,) = reports
  assert report.startswith("saving takes 1801 s so far; stacks of all")


def test_work_that_raises_is_over(watchdog, clock, reports):
  with pytest.raises(ValueError), watchdog.watch("a step"):
    raise ValueError
  clock.now += 10_000
  watchdog.check()
  assert reports == []


def test_the_thread_reports_the_stack_of_each_thread(clock):
  """The clock stands still until the work hangs."""
  said, reports = threading.Event(), []

  def say(text):
    reports.append(text)
    said.set()

  def wait_for_the_event(event):
    event.wait()

  event = threading.Event()
  reader = threading.Thread(
    target=wait_for_the_event, args=(event,), name="the-reader"
  )
  reader.start()
  with Watchdog(say, least_seconds=0.6, clock=clock) as watchdog:
    for _ in range(2):
      with watchdog.watch("waiting for images"):
        clock.now += 0.1
    with watchdog.watch("waiting for images"):
      clock.now += 0.7
      assert said.wait(timeout=60)
    event.set()
  reader.join()
  line, *stacks = reports[0].splitlines()
  assert line.startswith("waiting for images takes 1 s so far, at most 0.1 s")
  assert "the-reader:" in stacks
  assert "MainThread:" in stacks
  assert any("in wait_for_the_event" in stack for stack in stacks)
  assert not any("in _run" in stack and "watchdog" in stack for stack in stacks)
