"""A signal stops a run at once, wherever it arrives, and loses no step."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from support.smoke_run import EVAL_BATCH, smoke
from support.train_processes import (
  finish,
  records,
  run_of,
  saved_steps,
  start,
  stop_at,
)

from podscale.collectives import EvaluationSums
from podscale.train import input_pipeline, loop
from podscale.train.data import Skips
from podscale.train.data.loading import device_prefetch
from podscale.train.errors import SaveError
from podscale.train.loop import train
from podscale.train.processes import signals
from podscale.train.processes.signals import Stop
from podscale.train.records.checkpoint import Checkpoints
from podscale.train.records.diff import diff
from podscale.train.records.log import RunLog
from podscale.train.settings.presets import get_preset
from podscale.train.setup import set_up

LINE = "SIGTERM: the run saves its state and stops"


def wait_for(text, console):
  begin = time.monotonic()
  while text not in console.file.getvalue():
    assert time.monotonic() - begin < 300
    time.sleep(0.01)


def hear(console):
  """Send SIGTERM and wait for the line about it."""
  os.kill(os.getpid(), signal.SIGTERM)
  wait_for(LINE, console)


def assert_goes_on_as_if_nothing_was(workdir, straight, console):
  expected_workdir, expected, _ = straight
  again = train(smoke(workdir), console)
  assert again.evaluation == expected.evaluation
  assert diff(expected_workdir, workdir) == []
  for got, want in zip(
    jax.tree.leaves(again.state), jax.tree.leaves(expected.state), strict=True
  ):
    assert np.asarray(got).tobytes() == np.asarray(want).tobytes()


def is_of_evaluation(batch):
  return len(batch["label"]) == EVAL_BATCH


@pytest.mark.slow
def test_an_evaluation_is_left(straight, tmp_path, console, monkeypatch):
  real, evaluated = input_pipeline.to_devices, []

  def signal_at_the_third(batch, mesh):
    if is_of_evaluation(batch):
      evaluated.append(batch)
      if len(evaluated) == 3:
        hear(console)
    return real(batch, mesh)

  monkeypatch.setattr(input_pipeline, "to_devices", signal_at_the_third)
  trained = train(smoke(tmp_path), console)
  assert trained.evaluation is None
  assert len(evaluated) < 10  # of 25
  assert "stopped by SIGTERM at step 6, saved" in console.file.getvalue()
  assert_goes_on_as_if_nothing_was(tmp_path, straight, console)


def test_an_evaluation_ends_between_two_batches(monkeypatch):
  run, stop = set_up(get_preset("smoke")), Stop()
  done = []

  def eval_step(variables, images, labels):
    done.append(labels)
    if len(done) == 3:
      os.kill(os.getpid(), signal.SIGTERM)
      stop.sleep(1)
    return EvaluationSums(len(labels), 0, 0, 0.0)

  stop.listen()
  with contextlib.closing(stop):
    assert loop.evaluate(eval_step, None, run, Skips(0), stop) is None
  assert len(done) == 3  # of 16


@pytest.mark.timeout(60)
def test_an_evaluation_whose_input_hangs_ends(monkeypatch):
  run, stop = set_up(get_preset("smoke")), Stop()
  goes_on = threading.Event()

  def hang(batch, mesh):
    os.kill(os.getpid(), signal.SIGTERM)
    goes_on.wait()

  monkeypatch.setattr(input_pipeline, "to_devices", hang)
  monkeypatch.setattr(device_prefetch, "_CLOSE_SECONDS", 0.1)
  stop.listen()
  with contextlib.closing(stop):
    assert loop.evaluate(None, None, run, Skips(0), stop) is None
  goes_on.set()


@pytest.mark.slow
@pytest.mark.parametrize("hangs_in", ["training", "evaluation"])
def test_input_is_not_waited_for(
  straight, tmp_path, console, monkeypatch, hangs_in
):
  real, seen, goes_on = input_pipeline.to_devices, [], threading.Event()

  def hang_at_the_fifth(batch, mesh):
    if is_of_evaluation(batch) == (hangs_in == "evaluation"):
      seen.append(batch)
      if len(seen) == 5:
        wait_for("step 4/6", console)
        hear(console)
        goes_on.wait()
    return real(batch, mesh)

  monkeypatch.setattr(input_pipeline, "to_devices", hang_at_the_fifth)
  monkeypatch.setattr(device_prefetch, "_CLOSE_SECONDS", 0.1)
  trained = train(smoke(tmp_path), console)
  goes_on.set()
  step = 4 if hangs_in == "training" else 6
  assert f"stopped by SIGTERM at step {step}, " in console.file.getvalue()
  assert int(trained.state.step) == step
  assert step in saved_steps(tmp_path)
  assert_goes_on_as_if_nothing_was(tmp_path, straight, console)


@pytest.mark.slow
def test_a_save_is_finished(straight, tmp_path, console, monkeypatch):
  real = Checkpoints.save

  def slow_save(self, step, *state):
    if LINE not in console.file.getvalue():
      hear(console)  # before the save writes anything
    real(self, step, *state)

  monkeypatch.setattr(Checkpoints, "save", slow_save)
  train(smoke(tmp_path), console)
  assert "stopped by SIGTERM at step 3, saved" in console.file.getvalue()
  assert saved_steps(tmp_path) == {3}
  assert_goes_on_as_if_nothing_was(tmp_path, straight, console)


@pytest.mark.parametrize("when", ["before", "in a pause"])
def test_the_last_state_is_tried_again_for_less_long(
  tmp_path, console, monkeypatch, when
):
  monkeypatch.setattr(loop, "_RETRY_SECONDS", (60, 60))
  monkeypatch.setattr(signals, "_SHORT_SECONDS", 0.1)
  tried, begin = [], time.monotonic()
  stop = Stop()

  def kill():
    os.kill(os.getpid(), signal.SIGTERM)

  def fail():
    tried.append(time.monotonic())
    if len(tried) == 1 and when == "before":
      kill()
    elif len(tried) == 1:
      threading.Timer(0.3, kill).start()
    raise SaveError("no room")

  stop.listen()
  with (
    contextlib.closing(stop),
    RunLog(tmp_path, total_steps=6, console=console) as log,
    Checkpoints(tmp_path / "checkpoints", keep=1) as checkpoints,
    pytest.raises(SaveError, match="no room"),
  ):
    loop._save_last(fail, checkpoints, log, stop)
  assert len(tried) == 3
  assert time.monotonic() - begin < 30


# A process whose main thread hangs in C and runs no Python handler.
IN_C = """
import ctypes, signal, sys
# A job in the background of a shell starts with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from podscale.train.processes import terminal
from podscale.train.setup import set_up
from podscale.train.processes.signals import Stop
class Done:
  def is_ready(self): return True
stop = Stop(terminal.leave)
stop.listen()
{set_up}
lock, library = ctypes.create_string_buffer(64), ctypes.CDLL(None)
library.pthread_mutex_lock(lock)
print("in C", flush=True)
library.pthread_mutex_lock(lock)
"""
SOMETHING_TO_SAVE = "stop.started(Done())"


def in_c(set_up=""):
  process = subprocess.Popen(
    [sys.executable, "-c", IN_C.format(set_up=set_up)],
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == "in C\n"
  return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_without_anything_to_save_a_process_leaves_at_once(number):
  with in_c() as process:
    process.send_signal(number)
    said, _ = process.communicate(timeout=30)
  assert process.returncode == 0
  assert said == (
    f"stopped by {number.name} before a step was done, nothing is lost; "
    "to resume, run the same command\n"
  )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_acts_by_default(number):
  with in_c(SOMETHING_TO_SAVE) as process:
    process.send_signal(number)
    assert process.stdout.readline() == LINE.replace("SIGTERM", number.name) + (
      "\n"
    )
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(timeout=30) == -number


def test_what_hangs_after_everything_is_saved_is_ended():
  short = "import podscale.train.processes.signals as s; s._END_SECONDS = 0.1"
  with in_c(f"{SOMETHING_TO_SAVE}; stop.saved(); {short}") as process:
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0


def test_what_never_comes_to_an_end_is_ended_with_a_line():
  short = (
    "import podscale.train.processes.signals as s; s._LONGEST_SECONDS = 0.1"
  )
  with in_c(f"{SOMETHING_TO_SAVE}; {short}") as process:
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=30)
  assert process.returncode == 1
  assert said.splitlines()[0] == LINE
  assert "has not ended, so the process exits" in said
  assert "from the last checkpoint" in said


def test_in_a_library_the_process_is_its_owner_s():
  stop = Stop()
  before = signal.getsignal(signal.SIGTERM)
  stop.listen()
  os.kill(os.getpid(), signal.SIGTERM)
  stop.sleep(10)
  assert stop.asked() and stop.signal == "SIGTERM"
  stop.close()
  assert signal.getsignal(signal.SIGTERM) == before
  assert signal.set_wakeup_fd(-1) == -1


def test_a_check_of_the_data_is_left(tmp_path):
  process = run_of(
    "from podscale.train import setup\n"
    "def look(*_):\n"
    "  print('HERE', flush=True)\n"
    "  threading.Event().wait()\n"
    "setup.open_source = look",
    tmp_path / "run",
  )
  (line,), _, seconds = stop_at(process, "HERE")
  assert process.returncode == 0
  assert line.startswith("stopped by SIGTERM before a step was done")
  assert seconds < 30


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_process_whose_threads_hang_in_a_read_ends(tmp_path):
  """The run has steps to save; Python would wait for the threads at exit."""
  process = run_of(
    "from podscale.train.processes import signals\n"
    "from podscale.train.data.sources.synthetic import Synthetic\n"
    "signals._END_SECONDS = 1\n"
    "real, seen = Synthetic.__getitem__, []\n"
    "def read(self, index):\n"
    "  if len(self) == 384: seen.append(index)\n"  # to train on
    "  if len(seen) > 6 * 64: threading.Event().wait()\n"
    "  return real(self, index)\n"
    "Synthetic.__getitem__ = read",
    tmp_path / "run",
  )
  # The threads work two batches ahead and two more are ready. When they hang,
  # the first three batches are complete, but not all of the sixth.
  lines, first, seconds = stop_at(process, "step 3/")
  said = "".join(lines)
  assert process.returncode == 0
  assert LINE in said and "stopped by SIGTERM at step" in said
  assert max(saved_steps(tmp_path / "run")) >= 3
  assert seconds < 30


@pytest.mark.slow
def test_a_compilation_is_left(tmp_path, monkeypatch):
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")  # compile again
  process = start(tmp_path, devices=2)
  # By then the run is compiling, in C.
  (said,), _, seconds = stop_at(process, "left out: nothing", after=3)
  assert process.returncode == 0
  assert said == (
    "stopped by SIGTERM before a step was done, nothing is lost; to resume, "
    f"run the same command with --workdir {tmp_path}\n"
  )
  assert seconds < 10
  monkeypatch.undo()
  (again,) = finish(start(tmp_path, devices=2))
  assert "smoke: starting of 12 steps" in again
  assert [r["step"] for r in records(tmp_path, "train")] == list(range(1, 13))
