"""Wall time by activity."""

import time

import pytest

from podscale.train.records.wall_time import WallTime


@pytest.fixture
def clock(monkeypatch):
  """Time that passes only when the test says so."""
  now = [100.0]
  monkeypatch.setattr(time, "perf_counter", lambda: now[0])

  def wait(seconds):
    now[0] += seconds

  return wait


def test_the_rest_is_steps(clock):
  wall_time = WallTime()
  clock(2.0)
  with wall_time.measure("evaluation"):
    clock(3.0)
  clock(1.0)
  with wall_time.measure("evaluation"):
    clock(4.0)
  wall_time.add("data wait", 0.5)
  assert wall_time.seconds() == {
    "evaluation": 7.0,
    "data wait": 0.5,
    "steps": 2.5,
  }


def test_nested_activities_count_once(clock):
  wall_time = WallTime()
  with wall_time.measure("evaluation"):
    clock(1.0)
    with wall_time.measure("compilation"):
      clock(5.0)
      wall_time.add("data wait", 2.0)
    clock(1.0)
  with wall_time.measure("checkpoints"):
    clock(1.0)
  assert wall_time.seconds() == {
    "data wait": 2.0,
    "compilation": 3.0,
    "evaluation": 2.0,
    "checkpoints": 1.0,
    "steps": 0.0,
  }


def test_the_first_call_is_compilation(clock):
  wall_time = WallTime()

  def step(seconds):
    clock(seconds)
    return seconds

  timed = wall_time.time_first_call("compilation", step)
  assert [timed(s) for s in (8.0, 1.0, 1.0)] == [8.0, 1.0, 1.0]
  assert wall_time.seconds() == {"compilation": 8.0, "steps": 2.0}


def test_an_activity_that_fails_counts(clock):
  wall_time = WallTime()
  with pytest.raises(KeyError), wall_time.measure("evaluation"):
    clock(1.0)
    raise KeyError
  assert wall_time.seconds() == {"evaluation": 1.0, "steps": 0.0}


def test_the_real_clock():
  begin = time.perf_counter()
  wall_time = WallTime()
  with wall_time.measure("evaluation"):
    pass
  seconds = wall_time.seconds()
  assert set(seconds) == {"evaluation", "steps"}
  assert 0 < sum(seconds.values()) <= time.perf_counter() - begin
