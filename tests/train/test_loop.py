"""Training loop on eight devices: training, resuming, stopping, refusing."""

import contextlib
import dataclasses
import functools
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console
from support.smoke_run import smoke

from podscale.train import input_pipeline, loop
from podscale.train.data.tools.synthesize import synthesize
from podscale.train.errors import NonFiniteError, SaveError, UsageError
from podscale.train.loop import train
from podscale.train.processes.signals import Stop
from podscale.train.processes.watchdog import Watchdog
from podscale.train.records.checkpoint import Checkpoints
from podscale.train.records.diff import diff
from podscale.train.records.lock import WorkdirLock
from podscale.train.records.log import RunLog
from podscale.train.records.metrics_file import read_metrics
from podscale.train.settings.config import DataConfig


def child(code):
  """Start Python on `code`, which sees `smoke` and eight CPU devices."""
  program = "import sys; from test_loop import *\n" + textwrap.dedent(code)
  here = Path(__file__).parent
  path = [str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]
  environment = os.environ | {
    "JAX_NUM_CPU_DEVICES": "8",
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": os.pathsep.join(path),
  }
  return subprocess.Popen(
    [sys.executable, "-c", program],
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def same_bits(a, b):
  a, b = np.asarray(a), np.asarray(b)
  return (a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes()


def assert_same_state(trained, expected):
  named = jax.tree.leaves_with_path(trained.state)
  different = [
    jax.tree_util.keystr(path)
    for (path, leaf), other in zip(
      named, jax.tree.leaves(expected.state), strict=True
    )
    if not same_bits(leaf, other)
  ]
  assert different == []
  assert len(named) > 100


def losses(workdir):
  records = read_metrics(workdir / "metrics.jsonl")
  return [(r["step"], r["loss"]) for r in records if r["kind"] == "train"]


def test_a_run_leaves_logs_checkpoints_and_a_picture(straight):
  workdir, trained, output = straight
  run, *records = read_metrics(workdir / "metrics.jsonl")
  assert run["kind"] == "run"
  assert run["preset"] == "smoke"
  assert run["device_count"] == 8
  assert run["settings"]["batch_size"] == 64
  assert [r["step"] for r in records if r["kind"] == "train"] == list(
    range(1, 7)
  )
  (evaluation,) = [r for r in records if r["kind"] == "eval"]
  assert evaluation["split"] == "test"
  assert (evaluation["step"], evaluation["epoch"]) == (6, 1.0)
  assert evaluation["examples"] == 1000
  assert evaluation["top1"] == evaluation["correct"] / 1000
  assert trained.evaluation.correct == evaluation["correct"]
  assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == [
    "3",
    "6",
  ]
  assert (workdir / "curves.png").stat().st_size > 10_000
  assert list((workdir / "tensorboard").iterdir())
  assert "step 6/6" in output
  assert int(trained.state.step) == 6


def test_killed_after_three_steps_and_resumed_equals_straight(
  straight, tmp_path, console
):
  """Weights, optimizer, average, statistics, data order, random streams."""
  workdir = tmp_path / "run"
  killed = child(
    f"""
    from podscale.train.records.checkpoint import Checkpoints
    save = Checkpoints.save
    def save_and_die(self, step, state, data_state):
      save(self, step, state, data_state)
      self.wait()
      os.kill(os.getpid(), signal.SIGKILL)
    Checkpoints.save = save_and_die
    train(smoke({str(workdir)!r}))
    """
  )
  output, _ = killed.communicate()
  assert killed.returncode == -signal.SIGKILL, output
  assert [step for step, _ in losses(workdir)] == [1, 2, 3]

  resumed = train(smoke(workdir), console)

  assert "resuming at step 3 of 6" in console.file.getvalue()
  straight_workdir, expected, _ = straight
  assert_same_state(resumed, expected)
  assert losses(workdir) == losses(straight_workdir)
  assert resumed.evaluation == expected.evaluation


@pytest.mark.slow
def test_sigterm_saves_and_exits_cleanly(tmp_path):
  workdir = tmp_path / "run"
  process = child(
    f"""
    train(smoke({str(workdir)!r}, epochs=1000.0, eval_every_epochs=1000.0,
                checkpoint_every_epochs=1000.0))
    """
  )
  said = []
  with process:
    for line in process.stdout:
      said.append(line)
      if line.startswith("step 2/"):
        process.send_signal(signal.SIGTERM)
        break
    said += process.stdout.readlines()
  assert process.returncode == 0, "".join(said)
  (stopped,) = [line for line in said if line.startswith("stopped by SIGTERM")]
  step = int(stopped.split("at step ")[1].split(",")[0])
  assert step >= 2
  assert [p.name for p in (workdir / "checkpoints").iterdir()] == [str(step)]
  records = read_metrics(workdir / "metrics.jsonl")
  assert records[-1]["step"] == step
  assert all(
    r["kind"] != "eval" for r in records
  )  # a signal stops the run without an evaluation


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, console):
  config = smoke(tmp_path / "run")
  # Warmup starts at 0, so the first step's gradient is still finite.
  schedule = dataclasses.replace(config.schedule, lr_per_256=1e38)
  with pytest.raises(NonFiniteError) as error:
    train(dataclasses.replace(config, schedule=schedule), console)
  assert "is not finite (loss" in str(error.value)
  assert ", in every tensor); " in str(error.value)
  assert "\n" not in str(error.value)
  assert "no checkpoint is saved yet" in str(error.value)


def test_other_settings_are_refused_and_nothing_is_changed(straight, console):
  workdir, _, _ = straight
  before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}
  with pytest.raises(UsageError, match="seed: 0 there, 1 now"):
    train(smoke(workdir, seed=1), console)
  assert {p: p.stat().st_mtime_ns for p in workdir.rglob("*")} == before


def test_a_finished_run_is_not_trained_again(straight, console):
  workdir, trained, _ = straight
  before = losses(workdir)
  again = train(smoke(workdir), console)
  assert losses(workdir) == before
  assert again.evaluation == trained.evaluation


def test_a_workdir_that_cannot_be_made_is_refused(tmp_path, console):
  (tmp_path / "file").write_text("in the way")
  with pytest.raises(UsageError, match="file/run"):
    train(smoke(tmp_path / "file" / "run"), console)


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory):
  """Folder of 130 training and 20 test images, with a bad one in each split."""
  folder = tmp_path_factory.mktemp("jpegs")
  synthesize(
    folder,
    "folder",
    examples={"train": 130, "test": 20},
    width=48,
    height=40,
  )
  for split in ("train", "val"):
    path = next((folder / split).rglob("00000007.jpg"))
    path.write_bytes(path.read_bytes()[:-20])
  return folder


def from_files(workdir, folder, **changes):
  data = DataConfig(
    source="images",
    path=str(folder),
    crop="resized",
    augment="autoaugment",
    skip_bad=2,
    cache=True,
    **changes,
  )
  return smoke(workdir, data=data, epochs=2.0, eval_batch_size=16)


def test_test_images_are_checked_before_the_first_step(jpegs, tmp_path):
  """Otherwise an image without a header would cost the training before it."""
  folder = tmp_path / "images"
  shutil.copytree(jpegs, folder)
  path = next((folder / "val").rglob("00000003.jpg"))
  path.write_bytes(path.read_bytes()[:20])
  config = from_files(tmp_path / "run", folder)
  strict = dataclasses.replace(config.data, skip_bad=0)
  output = io.StringIO()
  with pytest.raises(UsageError, match=r"00000003\.jpg: .* header"):
    train(dataclasses.replace(config, data=strict), Console(file=output))
  assert losses(tmp_path / "run") == []
  assert "starting of 4 steps" in output.getvalue()


def test_a_run_says_what_it_trains_on_in_three_lines(straight):
  lines = straight[2].splitlines()
  (start,) = [i for i, line in enumerate(lines) if "starting of" in line]
  train_line, test_line, left_out = lines[start + 1 : start + 4]
  assert "train: 384 images of 10 classes: synthetic images" in train_line
  assert re.search(r"test: [\d,]+ images of 10 classes: synthetic", test_line)
  assert left_out.strip().endswith("left out: nothing")


@pytest.mark.slow
def test_a_run_goes_on_where_its_data_has_moved(jpegs, tmp_path, console):
  workdir, moved = tmp_path / "run", tmp_path / "moved"
  train(from_files(workdir, jpegs), console)
  shutil.copytree(jpegs, moved)
  train(from_files(workdir, moved), console)
  said = console.file.getvalue()
  for split in ("train", "test"):
    moved_text = f"{split} images were in {jpegs} and are in {moved} now"
    assert moved_text in said
  assert "resuming at step 4 of 4" in said
  image = next((moved / "train").rglob("00000003.jpg"))
  image.rename(image.with_name("another.jpg"))
  with pytest.raises(UsageError, match="on other train images") as error:
    train(from_files(workdir, moved), console)
  assert str(jpegs) in str(error.value) and str(moved) in str(error.value)


@pytest.mark.slow
def test_files_augmented_on_host_and_device_train_alike(
  jpegs, tmp_path, console
):
  """The run leaves out each bad file once and names it."""
  train(from_files(tmp_path / "host", jpegs), console)
  train(from_files(tmp_path / "device", jpegs, augment_on="device"), console)
  host, device = losses(tmp_path / "host"), losses(tmp_path / "device")
  assert len(host) == 4
  # The same images and steps: the same bits.
  assert host == device
  records = read_metrics(tmp_path / "host" / "metrics.jsonl")
  evaluations = [r for r in records if r["kind"] == "eval"]
  assert [r["examples"] for r in evaluations] == [19, 19]
  said = console.file.getvalue()
  assert "skipped 2 bad examples: " in said
  for split in ("train", "val"):
    assert f"{jpegs}/{split}/class-0007/00000007.jpg: cannot decode" in said


@pytest.mark.slow
def test_a_bad_file_stops_the_run_in_one_line(jpegs, tmp_path, console):
  config = from_files(tmp_path / "run", jpegs)
  strict = dataclasses.replace(config.data, skip_bad=0)
  with pytest.raises(UsageError, match=r"00000007\.jpg: cannot decode"):
    train(dataclasses.replace(config, data=strict), console)


def test_the_log_has_the_share_of_waiting_for_data(straight):
  workdir, _, _ = straight
  records = read_metrics(workdir / "metrics.jsonl")
  shares = [r["data_wait"] for r in records if r["kind"] == "train"]
  assert all(0 <= share <= 1 for share in shares)


def test_the_time_of_a_run_is_accounted_for(straight):
  workdir, _, output = straight
  records = read_metrics(workdir / "metrics.jsonl")
  # Another test may have started the finished run again.
  starts = [i for i, r in enumerate(records) if r["kind"] == "run"] + [None]
  first = records[: starts[1]]
  accounts = [r["seconds"] for r in first if r["kind"] == "times"]
  assert len(accounts) == 3  # at both checkpoints and at the end
  last = accounts[-1]
  assert set(last) == {
    *("initialisation", "compilation", "data wait", "evaluation"),
    *("checkpoints", "steps"),
  }
  assert all(seconds >= 0 for seconds in last.values())
  # With six small steps, compiling takes most of the time.
  assert last["compilation"] > last["steps"] / 2
  assert "spent on" in output


def test_an_evaluation_that_fails_costs_no_training(
  straight, tmp_path, console, monkeypatch
):
  """The step is saved first, and evaluated when the run resumes."""

  def fail(*args):
    raise UsageError("a test image cannot be used")

  workdir = tmp_path / "run"
  with monkeypatch.context() as patch:
    patch.setattr(loop, "evaluate", fail)
    with pytest.raises(UsageError, match="a test image cannot"):
      train(smoke(workdir), console)
  assert (workdir / "checkpoints" / "6").is_dir()
  again = train(smoke(workdir), console)
  assert "resuming at step 6 of 6" in console.file.getvalue()
  straight_workdir, expected, _ = straight
  assert diff(straight_workdir, workdir) == []
  assert again.evaluation == expected.evaluation


def test_a_second_run_in_a_workdir_is_refused(straight, console):
  workdir, _, _ = straight
  with contextlib.closing(WorkdirLock(workdir)) as lock:
    lock.take()
    with pytest.raises(UsageError, match=f"process {os.getpid()} on "):
      train(smoke(workdir), console)


def test_a_log_that_is_not_ours_stops_the_run_before_it_compiles(
  straight, tmp_path, console
):
  workdir = tmp_path / "run"
  shutil.copytree(straight[0], workdir)
  with (workdir / "metrics.jsonl").open("a") as file:
    file.write('{"kind": "train", "step": "7"}\n')
  with pytest.raises(UsageError, match="of .*metrics.jsonl is not a record"):
    train(smoke(workdir), console)
  assert console.file.getvalue() == ""


@pytest.fixture
def fifth_batch_is_poison(monkeypatch):
  """Make the loss of the fifth batch NaN, whenever the run trains on it."""
  real, seen = loop.assemble, []

  def make(*args, **kwargs):
    assembly = real(*args, **kwargs)
    step = assembly.train_step

    def poisoned(state, images, labels):
      state, metrics = step(state, images, labels)
      key = np.asarray(images).tobytes()
      if key not in seen:
        seen.append(key)
      if seen.index(key) == 4:
        metrics = metrics | {"loss": metrics["loss"] * np.float32(np.nan)}
      return state, metrics

    return assembly._replace(train_step=poisoned)

  monkeypatch.setattr(loop, "assemble", make)
  return seen


@pytest.mark.slow
def test_a_rollback_goes_on_behind_the_images_that_are_not_finite(
  fifth_batch_is_poison, straight, tmp_path, console
):
  workdir = tmp_path / "run"
  trained = train(smoke(workdir, non_finite="rollback"), console)
  said = console.file.getvalue()
  assert "step 5 is not finite (loss nan" in said
  assert "that of step 3; rolling back, then training on the images" in said
  assert "(rollback 1 of at most 3)" in said
  assert int(trained.state.step) == 6
  # Five batches, and three more for the steps after the checkpoint.
  assert len(fifth_batch_is_poison) == 8
  got, want = losses(workdir), losses(straight[0])
  assert [step for step, _ in got] == list(range(1, 7))
  assert got[:3] == want[:3] and got[3:] != want[3:]


@pytest.mark.slow
def test_without_rollback_it_stops_there(
  fifth_batch_is_poison, tmp_path, console
):
  with pytest.raises(NonFiniteError, match="step 5 is not finite"):
    train(smoke(tmp_path / "run"), console)


@pytest.mark.slow
def test_rollbacks_end(tmp_path, console):
  config = smoke(tmp_path / "run", non_finite="rollback", most_rollbacks=1)
  schedule = dataclasses.replace(config.schedule, lr_per_256=1e38)
  with pytest.raises(NonFiniteError, match="no checkpoint is saved yet"):
    train(dataclasses.replace(config, schedule=schedule), console)
  assert console.file.getvalue().count("rollback 1 of at most 1") == 1


def fill_disk_at(steps, monkeypatch):
  """Let the saves of these steps find a full disk; return the attempts."""
  save, usage = Checkpoints.save, shutil.disk_usage
  tried = []

  def save_without_room(self, step, state, data_state):
    with monkeypatch.context() as patch:
      if step in steps:
        tried.append(step)
        full = usage("/")._replace(free=0)
        patch.setattr(shutil, "disk_usage", lambda path: full)
      save(self, step, state, data_state)

  monkeypatch.setattr(Checkpoints, "save", save_without_room)
  return tried


def test_a_full_disk_ends_neither_run_nor_older_checkpoints(
  straight, tmp_path, console, monkeypatch
):
  fill_disk_at([4], monkeypatch)
  config = smoke(tmp_path / "run", checkpoint_every_epochs=1 / 3)
  trained = train(config, console)
  said = console.file.getvalue()
  assert said.count("could not be saved") == 1
  assert "step 2 is kept" in said
  assert "the disk has room for 0); the run goes on" in said
  saved = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
  assert saved == {"2", "6"}
  _, expected, _ = straight
  assert_same_state(trained, expected)


def test_the_last_state_is_tried_again_and_then_it_is_an_error(
  tmp_path, console, monkeypatch
):
  monkeypatch.setattr(loop, "_RETRY_SECONDS", (0, 0))
  tried = fill_disk_at([6], monkeypatch)
  with (
    RunLog(tmp_path, total_steps=6, console=console) as log,
    Checkpoints(tmp_path / "checkpoints", keep=1) as checkpoints,
    pytest.raises(SaveError, match="there is no other"),
  ):
    save = functools.partial(checkpoints.save, 6, {"w": jax.numpy.ones(3)}, {})
    loop._save_last(save, checkpoints, log, Stop())
  assert tried == [6, 6, 6]
  assert console.file.getvalue().count("trying again in at most 0 s") == 2


def test_what_hangs_is_said_with_its_stack_and_changes_nothing(
  straight, tmp_path, console, monkeypatch
):
  """An input and a step hang; the run still ends with the same bits."""
  to_devices, real_assemble = input_pipeline.to_devices, loop.assemble
  batches, steps = [], []

  def wait_until_it_is_said(what):
    begin = time.monotonic()
    while f"{what} takes" not in console.file.getvalue():
      assert time.monotonic() - begin < 60
      time.sleep(0.01)

  def hang_at_the_fifth(batch, mesh):
    batches.append(batch)
    if len(batches) == 5:
      wait_until_it_is_said("waiting for images")
    return to_devices(batch, mesh)

  @jax.jit
  def hanging(loss):
    def hang_on_the_device(loss):
      wait_until_it_is_said("waiting for the devices")
      return loss

    return jax.pure_callback(hang_on_the_device, loss, loss)

  def assemble_hanging(*args, **settings):
    assembly = real_assemble(*args, **settings)
    step = assembly.train_step

    def step_that_hangs(*state_and_batch):
      state, metrics = step(*state_and_batch)
      steps.append(metrics)
      if len(steps) == 4:
        metrics = metrics | {"loss": hanging(metrics["loss"])}
      return state, metrics

    return assembly._replace(train_step=step_that_hangs)

  monkeypatch.setattr(input_pipeline, "to_devices", hang_at_the_fifth)
  monkeypatch.setattr(loop, "assemble", assemble_hanging)
  short = functools.partial(Watchdog, least_seconds=0.5)
  monkeypatch.setattr(loop, "Watchdog", short)
  again = train(smoke(tmp_path / "run"), console)
  lines = console.file.getvalue().splitlines()
  assert "podscale-device-prefetch:" in lines
  assert any("in hang_at_the_fifth" in line for line in lines)
  assert any("in hang_on_the_device" in line for line in lines)
  workdir, expected, _ = straight
  assert diff(workdir, tmp_path / "run") == []
  assert again.evaluation == expected.evaluation
  assert_same_state(again, expected)
