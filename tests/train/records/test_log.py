import dataclasses
import importlib.metadata
import io
import json
import math
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from support.full_disk import files_up_to
from support.tensorboard_files import events, scalars

from podscale.train.errors import UsageError
from podscale.train.records.files import make_folder, write_atomically
from podscale.train.records.log import RunLog
from podscale.train.records.metrics_file import read_metrics
from podscale.train.records.run_record import git_revision, run_record
from podscale.train.settings.config import Config

RUN = {
  "preset": "smoke",
  "device_kind": "cpu",
  "device_count": 8,
  "process_count": 1,
}


def train_record(step, **changed):
  record = {
    "step": step,
    "epoch": step / 20,
    "loss": 0.9123,
    "learning_rate": 1.234,
    "images_per_s": 1240.4,
    "data_wait": 0.034,
  }
  return record | changed


def eval_record(step, **changed):
  record = {
    "split": "test",
    "step": step,
    "epoch": step / 20,
    "examples": 2000,
    "correct": 1723,
    "top1": 0.8615,
    "loss": 0.5,
  }
  return record | changed


@pytest.fixture(autouse=True)
def capable_terminal(monkeypatch):
  monkeypatch.setenv("TERM", "xterm")


def open_log(workdir, console=None, **options):
  console = console or Console(file=io.StringIO())
  options = {"total_steps": 240, "resume_step": 0, "is_main": True} | options
  return RunLog(workdir, console=console, **options)


def strict_lines(workdir):
  """Parse the records and refuse NaN and Infinity."""

  def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")

  text = (workdir / "metrics.jsonl").read_text()
  assert text.endswith("\n")
  return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def kinds_and_steps(records):
  return [(record["kind"], record["step"]) for record in records]


def test_each_record_is_a_line_at_once(tmp_path):
  with open_log(tmp_path / "new" / "run") as log:
    for number, (write, record) in enumerate(
      [
        (log.run, RUN),
        (log.train, train_record(10)),
        (log.eval, eval_record(20)),
      ],
      start=1,
    ):
      write(record)
      assert len(strict_lines(tmp_path / "new" / "run")) == number
  run, train, evaluation = strict_lines(tmp_path / "new" / "run")
  times = [record.pop("time") for record in (run, train, evaluation)]
  assert times == sorted(times)
  assert run == {"kind": "run", "step": 0, "lost_seconds": 0.0} | RUN
  assert train == {"kind": "train"} | train_record(10)
  assert evaluation == {"kind": "eval"} | eval_record(20)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null(tmp_path, value):
  with open_log(tmp_path) as log:
    log.run(RUN | {"settings": {"deep": {"inside": value}}})
    log.train(train_record(1, loss=value))
  run, train = strict_lines(tmp_path)
  assert run["settings"]["deep"]["inside"] is None
  assert train["loss"] is None
  assert train["learning_rate"] == 1.234
  assert ("train/loss", 1) not in scalars(tmp_path / "tensorboard")


def test_takes_scalars_of_numpy_and_jax(tmp_path):
  with open_log(tmp_path) as log:
    log.run(RUN)
    log.train(train_record(np.int64(1), loss=jnp.float32(0.25)))
  train = strict_lines(tmp_path)[1]
  assert (train["step"], train["loss"]) == (1, 0.25)


def test_scalars_go_to_tensorboard_under_the_same_names(tmp_path):
  with open_log(tmp_path) as log:
    log.run(RUN)
    log.train(train_record(10))
    log.eval(eval_record(20))
  logged = scalars(tmp_path / "tensorboard")
  assert logged["train/learning_rate", 10] == np.float32(1.234)
  assert logged["eval/top1", 20] == np.float32(0.8615)
  assert {tag for tag, _ in logged} == {
    f"{kind}/{name}"
    for kind, record in (("train", train_record(0)), ("eval", eval_record(0)))
    for name in record
    if name not in ("step", "split")
  }


def test_a_resumed_run_has_one_history(tmp_path):
  with open_log(tmp_path) as log:
    log.run(RUN)
    for step in (10, 20, 30, 40):
      log.train(train_record(step))
    log.eval(eval_record(20))
  with open_log(tmp_path, resume_step=20) as log:
    log.run(RUN)
    log.train(train_record(30, loss=0.5))
  records = strict_lines(tmp_path)
  assert kinds_and_steps(records) == [
    ("run", 0),
    ("train", 10),
    ("train", 20),
    ("eval", 20),
    ("run", 20),
    ("train", 30),
  ]
  assert records[-1]["loss"] == 0.5
  # TensorBoard discards its values from step 21 on.
  purges = [
    e.step for e in events(tmp_path / "tensorboard") if e.session_log.status
  ]
  assert purges[-1] == 21


def test_a_run_killed_before_its_first_checkpoint_starts_anew(tmp_path):
  for loss in (2.0, 3.0):
    with open_log(tmp_path) as log:
      log.run(RUN)
      log.train(train_record(10, loss=loss))
  records = strict_lines(tmp_path)
  assert kinds_and_steps(records) == [("run", 0), ("train", 10)]
  assert records[1]["loss"] == 3.0


def test_a_torn_last_line_is_dropped(tmp_path):
  with open_log(tmp_path) as log:
    log.run(RUN)
    log.train(train_record(10))
    log.train(train_record(20))
  path = tmp_path / "metrics.jsonl"
  path.write_bytes(path.read_bytes()[:-30])
  assert kinds_and_steps(read_metrics(path)) == [("run", 0), ("train", 10)]
  with open_log(tmp_path, resume_step=20) as log:
    log.train(train_record(30))
  assert kinds_and_steps(strict_lines(tmp_path)) == [
    ("run", 0),
    ("train", 10),
    ("train", 30),
  ]


RECORDS = [
  {"kind": "run", "step": 0, "time": 1.0, "preset": "smoke"}
  | {"device_kind": "cpu", "device_count": 8, "process_count": 1},
  {"kind": "train", "time": 1.0} | train_record(10),
  {"kind": "eval", "time": 1.0} | eval_record(10),
  {"kind": "times", "step": 10, "time": 1.0, "seconds": {"steps": 1}},
]


def refused_line(line, tmp_path):
  """Return the error about a second line; the file must stay the same."""
  path = tmp_path / "metrics.jsonl"
  content = f"{json.dumps(RECORDS[0])}\n{line}\n"
  path.write_text(content)
  with pytest.raises(UsageError, match=f"line 2 of {path} is not a") as error:
    open_log(tmp_path)
  assert path.read_text() == content
  assert "\n" not in str(error.value)
  assert len(str(error.value)) < 400
  return str(error.value)


@pytest.mark.parametrize(
  "line",
  [
    *("not JSON", "[1]", '"x"', "1", "null", "", '{"loss": 1.0}', "{}"),
    *("[" * 1000, "[" * 1000 + "]" * 1000, '{"a":' * 1000, "[" * 100_000),
    "9" * 5000,
  ],
)
def test_a_foreign_line_is_named_and_nothing_is_lost(tmp_path, line):
  refused_line(line, tmp_path)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["kind"])
def test_a_record_without_a_field_is_named(tmp_path, record):
  for name in record.keys() - {"data_wait"}:
    lacking = {key: value for key, value in record.items() if key != name}
    assert name in refused_line(json.dumps(lacking), tmp_path)


@pytest.mark.parametrize("value", [True, "1", [], {}, -1e310, 10**400])
@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record["kind"])
def test_a_field_of_another_type_is_named(tmp_path, record, value):
  for name in record.keys() - {"data_wait"}:
    if isinstance(record[name], str) and isinstance(value, str):
      continue
    if isinstance(record[name], dict) and value == {}:
      continue
    text = refused_line(json.dumps(record | {name: value}), tmp_path)
    assert f"({name} is " in text


@pytest.mark.parametrize(
  "change",
  [
    *({"step": step} for step in (None, -1, 1.0, 2**63)),
    *({"kind": kind} for kind in (None, ["run"], "note")),
    *({"time": time} for time in (None, 1e12, 10**20)),
    {"examples": -1},
    *({"split": split} for split in ("\ud800", "\x1b[2J", "two\nlines")),
    {"extra": json.loads("[" * 200 + "]" * 200)},
    {"lost_seconds": "none"},
  ],
)
def test_a_value_that_no_run_writes_is_named(tmp_path, change):
  refused_line(json.dumps(RECORDS[2] | change), tmp_path)


@pytest.mark.parametrize(
  "record",
  [
    RECORDS[0],
    RECORDS[0] | {"lost_seconds": -0.5, "settings": {"model": {"name": "b0"}}},
    RECORDS[1],
    RECORDS[1] | {"loss": None, "learning_rate": None, "gradient_norm": None},
    RECORDS[1] | {"time": 1764547200, "loss": 3, "of a later version": [[1]]},
    RECORDS[2] | {"loss": None},
    RECORDS[3],
    RECORDS[3] | {"seconds": {}},
  ],
)
def test_what_runs_have_written_so_far_is_read(tmp_path, record):
  path = tmp_path / "metrics.jsonl"
  path.write_text(json.dumps(record))
  assert read_metrics(path) == [record]


def test_a_line_cut_at_any_place_is_dropped(tmp_path):
  path = tmp_path / "metrics.jsonl"
  first = json.dumps(RECORDS[0]) + "\n"
  last = json.dumps(RECORDS[0] | {"settings": {"model": {"name": "b0"}}})
  for end in range(len(last)):
    path.write_text(first + last[:end])
    assert len(read_metrics(path)) == 1
  path.write_text(first + last)
  assert len(read_metrics(path)) == 2


def test_work_behind_the_last_checkpoint_is_counted_as_lost(tmp_path):
  with open_log(tmp_path) as log:
    log.run(RUN)
    log.train(train_record(20))
    log.times(20, {"steps": 9.0})
    log.train(train_record(30))
  *_, saved, lost = strict_lines(tmp_path)
  with open_log(tmp_path, resume_step=20) as log:
    log.run(RUN)
  *_, account, again = strict_lines(tmp_path)
  assert (account["kind"], account["seconds"]) == ("times", {"steps": 9.0})
  assert again["lost_seconds"] == lost["time"] - saved["time"]


def test_only_process_0_writes(tmp_path):
  output = io.StringIO()
  with open_log(tmp_path, Console(file=output), is_main=False) as log:
    log.run(RUN)
    log.train(train_record(10))
    log.eval(eval_record(20))
    log.message("hello")
    assert output.getvalue() == ""
    log.message("what only this process knows", everywhere=True)
  assert list(tmp_path.iterdir()) == []
  assert output.getvalue() == "what only this process knows\n"


def test_prints_plain_lines_where_there_is_no_terminal(tmp_path, monkeypatch):
  clock = 0.0
  monkeypatch.setattr("time.monotonic", lambda: clock)
  output = io.StringIO()
  with open_log(tmp_path, Console(file=output), total_steps=40) as log:
    log.run(RUN)
    clock = 60.0
    log.train(train_record(10))
    clock = 70.0
    log.train(train_record(20))
    log.eval(eval_record(20))
  # At the first record the pace is 6 s a step, for 30 steps. Later the pace is
  # 1 s a step, because the time to the first record included compilation.
  assert output.getvalue().splitlines() == [
    "step 10/40  epoch 0.5  loss 0.912  lr 1.23  1,240 img/s  eta 0:03:00  "
    "data wait 3%",
    "step 20/40  epoch 1.0  loss 0.912  lr 1.23  1,240 img/s  eta 0:00:20  "
    "data wait 3%",
    "step 20/40  epoch 1.0  test top-1 86.15% (1,723 of 2,000)  loss 0.500",
  ]


def test_shows_a_bar_in_a_terminal(tmp_path):
  output = io.StringIO()
  console = Console(
    file=output, force_terminal=True, width=80, color_system=None
  )
  with open_log(tmp_path, console) as log:
    log.run(RUN)
    log.train(train_record(120))
    log.message("[saved]")
  shown = output.getvalue()
  above, below = shown.split("[saved]\n")
  for bar in (above, below):
    assert "120/240 epoch 6.0  loss 0.912  lr 1.23  1,240 img/s  eta 0:" in bar
    assert "━" in bar
  assert "step 120/240" not in shown


def test_a_terminal_that_cannot_move_the_cursor_gets_lines(
  tmp_path, monkeypatch
):
  monkeypatch.setenv("TERM", "dumb")
  output = io.StringIO()
  with open_log(tmp_path, Console(file=output, force_terminal=True)) as log:
    log.run(RUN)
    log.train(train_record(120))
  assert "step 120/240  epoch 6.0" in output.getvalue()


def test_the_bar_goes_and_the_lines_stay_when_the_run_fails(tmp_path):
  output = io.StringIO()
  console = Console(file=output, force_terminal=True)
  with (
    pytest.raises(FloatingPointError),
    open_log(tmp_path, console) as log,
  ):
    log.run(RUN)
    log.train(train_record(10))
    raise FloatingPointError("loss is nan")
  assert output.getvalue().endswith("\x1b[?25h")  # the cursor is visible again
  assert kinds_and_steps(strict_lines(tmp_path)) == [("run", 0), ("train", 10)]
  assert ("train/loss", 10) in scalars(tmp_path / "tensorboard")


def test_an_unwritable_workdir_is_named(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(UsageError, match="file/run: .*/file is a file"):
    open_log(tmp_path / "file" / "run")
  (tmp_path / "metrics.jsonl").mkdir()
  with pytest.raises(UsageError, match="metrics.jsonl: Is a directory"):
    open_log(tmp_path)


def test_write_atomically_replaces_the_file(tmp_path):
  path = tmp_path / "deep" / "file"
  for text in ("first, longer", "second"):
    write_atomically(path, text)
    assert path.read_text() == text
  assert list(path.parent.iterdir()) == [path]


def test_write_atomically_leaves_nothing_where_it_fails(tmp_path):
  path = tmp_path / "file"
  path.write_text("old")
  with (
    files_up_to(10),
    pytest.raises(UsageError, match="file: File too large"),
  ):
    write_atomically(path, b"eleven bytes")
  assert path.read_text() == "old"
  assert list(tmp_path.iterdir()) == [path]


def test_make_folder_names_what_is_in_the_way(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(UsageError, match="file: .*/file is a file"):
    make_folder(tmp_path / "file")


def test_a_package_that_runs_from_its_sources_has_no_version(monkeypatch):
  version = importlib.metadata.version

  def only_others(name):
    if name == "podscale":
      raise importlib.metadata.PackageNotFoundError(name)
    return version(name)

  monkeypatch.setattr(importlib.metadata, "version", only_others)
  versions = run_record(Config(preset="b0"))["versions"]
  assert versions["podscale"] == "not installed"
  assert versions["numpy"] == np.__version__


def test_run_record_has_what_repeats_a_run():
  config = Config(preset="b0", seed=3)
  record = run_record(config)
  assert record["preset"] == "b0"
  assert record["settings"] == dataclasses.asdict(config)
  assert record["versions"]["jax"] == jax.__version__
  assert record["versions"]["numpy"] == np.__version__
  assert set(record["versions"]) == {
    *("podscale", "jax", "jaxlib", "flax", "optax", "numpy", "python")
  }
  assert record["device_kind"] == jax.devices()[0].device_kind
  assert (record["device_count"], record["process_count"]) == (8, 1)
  assert json.loads(json.dumps(record)) == record


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_git_revision_is_that_of_the_files(tmp_path):
  def git(*args):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(
      ["git", *who, *args],
      cwd=tmp_path,
      check=True,
      capture_output=True,
      text=True,
    ).stdout.strip()

  package = tmp_path / "package"
  installed = tmp_path / "environment" / "package"
  for folder in (package, installed):
    folder.mkdir(parents=True)
    (folder / "code.py").write_text("1\n")
  assert git_revision(package) is None
  git("init")
  git("add", "package")
  git("commit", "-m", "first")
  commit = git("rev-parse", "HEAD")
  assert git_revision(package) == commit
  assert git_revision(installed) is None
  (package / "code.py").write_text("2\n")
  assert git_revision(package) == f"{commit}-dirty"


def test_without_git_there_is_no_revision(tmp_path, monkeypatch):
  monkeypatch.setenv("PATH", str(tmp_path))
  assert git_revision(tmp_path) is None


def test_a_full_disk_is_said_once_and_nothing_is_lost(tmp_path):
  console = Console(file=io.StringIO(), width=200)
  with open_log(tmp_path, console) as log:
    log.run(RUN)
    with files_up_to(10):
      for step in (10, 20):
        log.train(train_record(step))
    log.train(train_record(30))
  assert kinds_and_steps(strict_lines(tmp_path)) == [
    ("run", 0),
    ("train", 10),
    ("train", 20),
    ("train", 30),
  ]
  said = console.file.getvalue()
  assert said.count("the log cannot be written (File too large)") == 1
  assert said.count("the log is written again") == 1
  assert ("train/loss", 30) in scalars(tmp_path / "tensorboard")
