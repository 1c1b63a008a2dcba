import io
import json

import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest
from rich.console import Console
from support.full_disk import files_up_to

from podscale.train.errors import UsageError
from podscale.train.records.report import print_summary, report, write_curves

RUN = {
  "kind": "run",
  "step": 0,
  "preset": "demo",
  "device_kind": "cpu",
  "device_count": 8,
  "process_count": 1,
  "time": 1000.0,
}
BLUE, ORANGE = "#4C72B0", "#DD8452"


def train_record(step, **changed):
  record = {
    "kind": "train",
    "step": step,
    "epoch": step / 20,
    "loss": 2.0 - step / 100,
    "learning_rate": step / 50,
    "images_per_s": 1000.0 + step,
    "time": 1000.0 + step,
  }
  return record | changed


def times_record(step, **seconds):
  return {"kind": "times", "step": step, "seconds": seconds, "time": 0.0}


def eval_record(step, correct):
  return {
    "kind": "eval",
    "split": "test",
    "step": step,
    "epoch": step / 20,
    "examples": 2000,
    "correct": correct,
    "top1": correct / 2000,
    "loss": 0.5,
    "time": 1000.5 + step,
  }


WHOLE = [
  RUN,
  *(train_record(step) for step in range(10, 60, 10)),
  eval_record(20, 1500),
  eval_record(40, 1723),
  eval_record(60, 1700),
]


def write_metrics(workdir, records):
  lines = "".join(json.dumps(record) + "\n" for record in records)
  (workdir / "metrics.jsonl").write_text(lines)


def drawn(workdir, records):
  """Count pixels of a colour in the loss, learning rate and top-1 panels."""
  write_metrics(workdir, records)
  path = write_curves(workdir)
  assert path == workdir / "curves.png"
  assert path.stat().st_size > 10_000
  image = matplotlib.image.imread(path)[..., :3]
  assert image.shape == (630, 1800, 3)

  def count(color, panel):
    near = np.abs(panel - np.array(matplotlib.colors.to_rgb(color))) < 0.02
    return int(near.all(axis=-1).sum())

  panels = np.split(image, 3, axis=1)
  return {
    color: [count(color, panel) for panel in panels] for color in (BLUE, ORANGE)
  }


def summary(workdir, records, width=100):
  write_metrics(workdir, records)
  output = io.StringIO()
  print_summary(workdir, Console(file=output, width=width))
  rows = {}
  for line in output.getvalue().splitlines():
    name, _, value = line.strip().partition("  ")
    rows[name] = value.strip()
  return output.getvalue(), rows


def test_draws_all_three_panels(tmp_path):
  pixels = drawn(tmp_path, WHOLE)
  loss, learning_rate, accuracy = pixels[BLUE]
  # A curve across a panel of about 450 pixels has at least this many.
  assert loss > 450 and learning_rate > 450 and accuracy == 0
  loss, learning_rate, accuracy = pixels[ORANGE]
  assert loss > 300 and learning_rate == 0 and accuracy > 300


def test_draws_what_there_is(tmp_path):
  nothing = {BLUE: [0, 0, 0], ORANGE: [0, 0, 0]}
  assert drawn(tmp_path, [RUN]) == nothing
  no_evals = drawn(tmp_path, WHOLE[:6])
  assert no_evals[ORANGE] == [0, 0, 0]
  assert no_evals[BLUE][0] > 450
  one_point = drawn(tmp_path, WHOLE[:2])
  assert one_point[BLUE][0] > 20  # a dot


def test_leaves_out_a_loss_that_was_not_finite(tmp_path):
  records = [RUN, train_record(10), train_record(20, loss=None)]
  pixels = drawn(tmp_path, records)
  assert 20 < pixels[BLUE][0] < 450  # a dot
  assert pixels[BLUE][1] > 300  # the learning rate is a line


def test_summary_of_a_whole_run(tmp_path):
  (tmp_path / "checkpoints").mkdir()
  text, rows = summary(tmp_path, WHOLE)
  assert "podscale demo: 85.00% top-1 after 3 epochs" in text
  assert rows["preset"] == "demo"
  assert rows["devices"] == "8 x cpu"
  assert rows["steps"] == "60"
  assert rows["epochs"] == "3.0"
  assert rows["images/s"] == "1,030 (median)"
  assert rows["test top-1"] == "85.00% (1,700 of 2,000 images)"
  assert rows["best"] == "86.15% (1,723 of 2,000 images) after epoch 2.0"
  assert rows["files"] == str(tmp_path / "metrics.jsonl")
  assert str(tmp_path / "checkpoints") in text
  assert "curves.png" not in text  # nothing has drawn it


def test_summary_of_a_run_without_evaluations(tmp_path):
  _, rows = summary(tmp_path, [RUN])
  assert rows["steps"] == "0"
  assert rows["top-1"] == "not evaluated"
  assert rows["time"] == "0:00:00"
  _, rows = summary(tmp_path, WHOLE[:2])
  assert rows["steps"] == "10"


def test_the_time_between_a_kill_and_the_resumption_does_not_count(tmp_path):
  records = [
    RUN,
    train_record(10, time=1090.0),
    RUN | {"step": 10, "time": 90_000.0, "process_count": 2},
    train_record(20, time=90_040.0),
  ]
  _, rows = summary(tmp_path, records)
  assert rows["time"] == "0:02:10"
  assert rows["devices"] == "8 x cpu in 2 processes"


def test_what_the_time_went_into_is_added_up_over_processes(tmp_path):
  records = [
    RUN | {"lost_seconds": 0.0},
    train_record(10, time=1050.0),
    times_record(10, steps=40.0, compilation=10.0),
    train_record(20, time=1090.0),
    times_record(20, steps=70.0, compilation=20.0),
    RUN | {"step": 20, "time": 5000.0, "lost_seconds": 30.0},
    train_record(30, time=5060.0),
    times_record(30, steps=60.0, evaluation=20.0),
  ]
  _, rows = summary(tmp_path, records)
  # The whole is 200 seconds; a process's last record includes its first.
  assert rows["spent on"] == (
    "steps 65.0%, lost work 15.0%, compilation 10.0%, evaluation 10.0%"
  )


def test_a_finished_run_started_again_keeps_its_steps(tmp_path):
  _, rows = summary(tmp_path, [*WHOLE, RUN | {"step": 60, "time": 5000.0}])
  assert (rows["steps"], rows["epochs"]) == ("60", "3.0")


def test_a_narrow_terminal_loses_nothing(tmp_path):
  text, _ = summary(tmp_path, WHOLE, width=40)
  assert str(tmp_path / "metrics.jsonl") in "".join(text.split())


def test_a_folder_without_a_log_is_named(tmp_path):
  with pytest.raises(UsageError, match="metrics.jsonl: No such file"):
    write_curves(tmp_path)
  with pytest.raises(UsageError, match="metrics.jsonl: No such file"):
    print_summary(tmp_path, Console(file=io.StringIO()))


def test_a_log_without_records_is_drawn_and_summed_up(tmp_path):
  write_metrics(tmp_path, [])
  text = reported(tmp_path)
  assert "podscale a run" in text
  assert "cannot draw" not in text and "cannot print" not in text


def reported(workdir):
  output = io.StringIO()
  report(workdir, Console(file=output, width=200))
  return output.getvalue()


def test_a_picture_that_cannot_be_written_is_a_line(tmp_path):
  write_metrics(tmp_path, WHOLE)
  (tmp_path / "curves.png").mkdir()
  text = reported(tmp_path)
  assert "cannot draw curves.png (UsageError: cannot write" in text
  assert "1,030 (median)" in text  # the summary is still printed
  assert {p.name for p in tmp_path.iterdir()} == {"curves.png", "metrics.jsonl"}


def test_without_room_the_picture_before_stays(tmp_path):
  write_metrics(tmp_path, WHOLE)
  assert "cannot draw" not in reported(tmp_path)
  before = (tmp_path / "curves.png").read_bytes()
  with files_up_to(10_000):
    text = reported(tmp_path)
  assert "cannot draw curves.png (UsageError: cannot write" in text
  assert "File too large" in text
  assert (tmp_path / "curves.png").read_bytes() == before


@pytest.mark.parametrize("line", ["[1]", '{"kind": "train", "step": 1}', "{"])
def test_a_log_that_is_not_ours_is_two_lines(tmp_path, line):
  (tmp_path / "metrics.jsonl").write_text(f"{line}\n")
  curves, summary = reported(tmp_path).splitlines()
  assert "cannot draw curves.png" in curves
  assert "cannot print the summary" in summary
  assert "line 1 of" in curves and "line 1 of" in summary
