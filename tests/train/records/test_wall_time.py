"""Where the time of a run goes."""

import time

import pytest

from podscale.train.records import wall_time as accounting
from podscale.train.records.wall_time import Account


@pytest.fixture
def clock(monkeypatch):
  """Time that goes on only where the test says so."""
  now = [100.0]
  monkeypatch.setattr(accounting.time, "perf_counter", lambda: now[0])

  def wait(seconds):
    now[0] += seconds

  return wait


def test_what_is_not_booked_is_steps(clock):
  account = Account()
  clock(2.0)
  with account.spent_on("evaluation"):
    clock(3.0)
  clock(1.0)
  with account.spent_on("evaluation"):
    clock(4.0)
  account.add("data wait", 0.5)
  assert account.seconds() == {
    "evaluation": 7.0,
    "data wait": 0.5,
    "steps": 2.5,
  }


def test_what_is_inside_is_booked_once(clock):
  account = Account()
  with account.spent_on("evaluation"):
    clock(1.0)
    with account.spent_on("compilation"):
      clock(5.0)
      account.add("data wait", 2.0)
    clock(1.0)
  with account.spent_on("checkpoints"):
    clock(1.0)
  assert account.seconds() == {
    "data wait": 2.0,
    "compilation": 3.0,
    "evaluation": 2.0,
    "checkpoints": 1.0,
    "steps": 0.0,
  }


def test_the_first_call_is_compilation(clock):
  account = Account()

  def step(seconds):
    clock(seconds)
    return seconds

  booked = account.first_call("compilation", step)
  assert [booked(s) for s in (8.0, 1.0, 1.0)] == [8.0, 1.0, 1.0]
  assert account.seconds() == {"compilation": 8.0, "steps": 2.0}


def test_a_failure_is_booked_all_the_same(clock):
  account = Account()
  with pytest.raises(KeyError), account.spent_on("evaluation"):
    clock(1.0)
    raise KeyError
  assert account.seconds() == {"evaluation": 1.0, "steps": 0.0}


def test_the_real_clock():
  account = Account()
  with account.spent_on("evaluation"):
    time.sleep(0.01)
  assert account.seconds()["evaluation"] >= 0.01
