"""First difference between two runs."""

import json

import pytest

from podscale.train.__main__ import main
from podscale.train.errors import UsageError
from podscale.train.records.diff import diff


def start(**settings):
  return {
    "kind": "run",
    "step": 0,
    "settings": {"seed": 0, "workdir": "x", "model": {"name": "b0"}} | settings,
    "versions": {"jax": "0.12.0"},
    "preset": "smoke",
    "device_kind": "cpu",
    "device_count": 8,
    "process_count": 1,
    "time": 1.0,
  }


def step(number, loss, kind="train", **more):
  record = {"kind": kind, "step": number, "loss": loss, "time": 2.0}
  of_kind = {
    "train": {"epoch": 0.5, "learning_rate": 0.1, "images_per_s": 9.0},
    "eval": {"epoch": 0.5, "split": "test", "examples": 8}
    | {"correct": 4, "top1": 0.5},
  }
  return record | of_kind[kind] | more


def run(folder, *records):
  folder.mkdir()
  lines = "".join(json.dumps(record) + "\n" for record in records)
  (folder / "metrics.jsonl").write_text(lines)
  return folder


def test_equal_runs_may_have_other_speeds_and_places(tmp_path, capsys):
  a, b = (
    run(
      tmp_path / name,
      start(workdir=name) | {"lost_seconds": speed},
      step(1, 0.5, images_per_s=speed, data_wait=speed / 100),
      {"kind": "times", "step": 1, "seconds": {"steps": speed}, "time": speed},
    )
    for name, speed in (("a", 10.0), ("b", 11.0))
  )
  assert diff(a, b) == []
  assert main(["diff", str(a), str(b)]) == 0
  assert capsys.readouterr().out == "the same, bit for bit\n"


def test_the_first_setting_and_step_are_named(tmp_path, capsys):
  settings = {"seed": 1, "model": {"name": "b1"}}
  a = run(tmp_path / "a", start(), *(step(i, i / 8) for i in range(1, 5)))
  b = run(
    tmp_path / "b",
    start(**settings),
    *(step(i, i / 8 + (i > 2)) for i in range(1, 5)),
  )
  assert diff(a, b) == [
    f"settings.seed: 0 in {a}, 1 in {b}",
    f"train at step 3: loss 0.375 in {a}, 1.375 in {b}",
  ]
  assert main(["diff", str(a), str(b)]) == 1
  assert len(capsys.readouterr().out.splitlines()) == 2


def test_evaluations_count_too(tmp_path):
  a = run(tmp_path / "a", start(), step(1, 0.5), step(1, 0.4, kind="eval"))
  b = run(tmp_path / "b", start(), step(1, 0.5), step(1, 0.3, kind="eval"))
  assert diff(a, b) == [f"eval at step 1: loss 0.4 in {a}, 0.3 in {b}"]


def test_a_run_that_went_on_longer(tmp_path):
  a = run(tmp_path / "a", start(), step(1, 0.5))
  b = run(tmp_path / "b", start(), step(1, 0.5), step(2, 0.4))
  assert diff(a, b) == [f"train at step 2: only in {b}"]


def test_of_a_step_done_twice_the_last_counts(tmp_path):
  a = run(tmp_path / "a", start(), step(1, 0.5), start(), step(1, 0.4))
  b = run(tmp_path / "b", start(), step(1, 0.4))
  assert diff(a, b) == []


def test_what_is_no_run_is_refused(tmp_path, capsys):
  a = run(tmp_path / "a", start())
  b = run(tmp_path / "b")
  with pytest.raises(UsageError, match="has no record of a run's start"):
    diff(a, b)
  assert main(["diff", str(a)]) == 2
  assert "two workdirs" in capsys.readouterr().err


@pytest.mark.parametrize(
  "line", ["[1]", '{"kind": "train", "step": "1"}', "[" * 1000]
)
def test_a_log_that_is_not_ours_is_one_line(tmp_path, capsys, line):
  a, b = (run(tmp_path / name, start()) for name in ("a", "b"))
  with (b / "metrics.jsonl").open("a") as file:
    file.write(f"{line}\n")
  assert main(["diff", str(a), str(b)]) == 2
  (said,) = capsys.readouterr().err.splitlines()
  assert f"line 2 of {b}/metrics.jsonl is not a record of a run" in said
