"""Comparison of two runs."""

import json

import pytest

from podscale.bench import commands
from podscale.bench.__main__ import main
from podscale.bench.commands import Tables
from podscale.bench.tables.compare import changes, missing_rows, read_run
from podscale.train.errors import UsageError

MEASURED = [
  {"chip": "v3", "cores": 128, "us": 100.0, "chosen": "xla", "compile_s": 1.0},
  {"chip": "v3", "cores": 256, "us": 100.0, "chosen": "xla", "compile_s": 1.0},
]
ESTIMATED = [{**row, "compiler": {"libtpu": "1.2"}} for row in MEASURED]


@pytest.mark.parametrize(
  ("before", "us"), [(MEASURED, 110.0), (MEASURED, 90.0), (ESTIMATED, 102.0)]
)
def test_small_differences_are_no_change(before, us):
  after = [{**row, "us": us, "compile_s": 9.0} for row in before]
  assert changes(before, after) == []


@pytest.mark.parametrize(
  ("before", "us"),
  [(MEASURED, 111.0), (MEASURED, 89.0), (ESTIMATED, 102.1), (ESTIMATED, 97.9)],
)
def test_slower_and_faster_are_named(before, us):
  after = [before[0], {**before[1], "us": us}]
  (change,) = changes(before, after)
  assert (change.row, change.figure) == ("v3 256", "us")
  assert change.ratio == pytest.approx(us / 100)
  assert change.is_loss == (us > 100)


@pytest.mark.parametrize(
  ("figure", "before", "after", "is_loss"),
  [
    ("ratio", 2.0, 1.5, True),
    ("ratio", 1.5, 2.0, False),
    ("images_per_s", 20.0, 10.0, True),
    ("hbm_bytes", 10, 20, True),
    ("kernels", 0, 3, True),
    ("failures", [], ["x: FAILED"], True),
    ("failures", ["x: FAILED"], [], False),
    # The rival's time is neither.
    ("xla_us", 10.0, 20.0, False),
    ("xla_us", 20.0, 10.0, False),
  ],
)
def test_losses_by_figure(figure, before, after, is_loss):
  (change,) = changes(
    [{"layer": "a", figure: before}], [{"layer": "a", figure: after}]
  )
  assert change.is_loss == is_loss


def test_new_rows_and_figures_are_no_change():
  after = [{**MEASURED[0], "bytes": 7}, {**MEASURED[1], "cores": 512}]
  assert changes(MEASURED, after) == []
  assert missing_rows(MEASURED, after) == ["v3 256"]
  assert missing_rows(MEASURED[:1], after) == []


@pytest.mark.parametrize("text", ["", "{", '{"a": 1}', "[1]"])
def test_other_files_are_refused(tmp_path, text):
  path = tmp_path / "run.json"
  path.write_text(text)
  with pytest.raises(UsageError, match=r"--compare .*run\.json"):
    read_run(path)


@pytest.mark.slow
def test_the_command_names_changes(tmp_path, capsys):
  run = ["lars", "--runs", "1", "--json"]
  assert main(run) == 0
  rows = json.loads(capsys.readouterr().out)
  path = tmp_path / "run.json"
  path.write_text(json.dumps([{**row, "median_s": 1e-9} for row in rows]))
  assert main([*run, "--compare", str(path)]) == 1
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) >= 4
  assert lines[0].startswith("optax.lars, per tensor: median_s 1e-09 -> ")


@pytest.fixture
def compare(tmp_path, capsys, monkeypatch):
  """Compare two results of `bench lars`; return exit code and lines."""

  def run(before, after):
    monkeypatch.setattr(commands, "run_lars", lambda args: Tables(before))
    assert main(["lars", "--json"]) == 0
    path = tmp_path / "run.json"
    path.write_text(capsys.readouterr().out)
    monkeypatch.setattr(commands, "run_lars", lambda args: Tables(after))
    code = main(["lars", "--compare", str(path)])
    return code, capsys.readouterr().err.splitlines()

  return run


def estimates(us, version="1.2"):
  return {"a": [{"update": "x", "us": us, "compiler": {"libtpu": version}}]}


def test_the_same_is_silent(compare):
  assert compare(estimates(100.0), estimates(102.0)) == (0, [])


def test_a_loss_fails(compare):
  assert compare(estimates(100.0), estimates(103.0)) == (
    1,
    ["x: us 100 -> 103 (1.03), loss", "losses: 1 of 1 differences"],
  )


def test_a_gain_is_reported(compare):
  code, lines = compare(estimates(100.0), estimates(50.0))
  assert (code, lines) == (0, ["x: us 100 -> 50 (0.50)"])


def test_a_loss_by_another_compiler_is_reported(compare):
  assert compare(estimates(100.0), estimates(103.0, "1.3")) == (
    0,
    [
      "compiled by libtpu 1.2 -> libtpu 1.3",
      "x: us 100 -> 103 (1.03), loss",
      "losses: 1, not a failure as the compiler differs",
    ],
  )


def test_a_missing_row_fails(compare):
  code, lines = compare({"a": MEASURED}, {"a": MEASURED[:1]})
  assert (code, lines[0]) == (1, "v3 256: row is missing")


def test_several_tables_are_compared_by_their_rows(compare):
  tables = {"a": [{"part": "x", "us": 1.0}], "b": [{"group": 4, "us": 2.0}]}
  slower = {**tables, "b": [{"group": 4, "us": 3.0}]}
  code, lines = compare(tables, slower)
  assert (code, lines[0]) == (1, "4: us 2 -> 3 (1.50), loss")


def test_details_are_not_compared(tmp_path, capsys, monkeypatch):
  tables = Tables(
    {"layers": [{"layer": "a", "us": 2.0}]},
    {"all": [{"layer": "a", "us": 1.0}]},
  )
  monkeypatch.setattr(commands, "run_kernels", lambda args: tables)
  assert main(["kernels", "--json"]) == 0
  path = tmp_path / "run.json"
  path.write_text(capsys.readouterr().out)
  assert main(["kernels", "--compare", str(path)]) == 0
  assert capsys.readouterr().err == ""


def test_a_missing_file_is_one_line(tmp_path, capsys):
  path = tmp_path / "none.json"
  assert main(["lars", "--compare", str(path)]) == 2
  assert str(path) in capsys.readouterr().err
