import json

import pytest

from podscale.bench import commands
from podscale.bench.__main__ import main
from podscale.bench.tables.compare import changes, read_run
from podscale.train.errors import UsageError

BEFORE = [
  {"chip": "v3", "cores": 128, "us": 100.0, "chosen": "xla", "compile_s": 1.0},
  {"chip": "v3", "cores": 256, "us": 100.0, "chosen": "xla", "compile_s": 1.0},
]


def test_a_tenth_is_no_change():
  after = [{**row, "us": 109.9, "compile_s": 9.0} for row in BEFORE]
  assert changes(BEFORE, after) == []


@pytest.mark.parametrize("us", [111.0, 89.0])
def test_slower_and_faster_are_named(us):
  after = [BEFORE[0], {**BEFORE[1], "us": us}]
  (change,) = changes(BEFORE, after)
  assert (change["row"], change["figure"]) == ("v3 256", "us")
  assert change["ratio"] == pytest.approx(us / 100)


def test_new_rows_and_figures_are_no_change():
  after = [{**BEFORE[0], "bytes": 7}, {**BEFORE[1], "cores": 512}]
  assert changes(BEFORE, after) == []


@pytest.mark.parametrize("text", ["", "{", '{"a": 1}', "[1]"])
def test_what_is_no_run_is_refused(tmp_path, text):
  path = tmp_path / "run.json"
  path.write_text(text)
  with pytest.raises(UsageError, match=r"--compare .*run\.json"):
    read_run(path)


@pytest.mark.slow
def test_the_command_says_what_changed(tmp_path, capsys):
  run = ["lars", "--runs", "1", "--json"]
  assert main(run) == 0
  rows = json.loads(capsys.readouterr().out)
  path = tmp_path / "run.json"
  path.write_text(json.dumps([{**row, "median_s": 1e9} for row in rows]))
  assert main([*run, "--compare", str(path)]) == 1
  said = capsys.readouterr().err.splitlines()
  assert len(said) >= 3
  assert said[0].startswith("optax.lars, per tensor: median_s 1e+09 -> ")


def test_tables_for_people_have_more_and_are_no_change(
  tmp_path, capsys, monkeypatch
):
  rows = [{"layer": "a", "us": 2.0}]
  details = [{"layer": "a", "us": 1.0}]

  def run(args):
    return {"layers": rows} if args.json else {"layers": rows, "all": details}

  monkeypatch.setattr(commands, "run_kernels", run)
  assert main(["kernels", "--json"]) == 0
  path = tmp_path / "run.json"
  path.write_text(capsys.readouterr().out)
  assert main(["kernels", "--compare", str(path)]) == 0
  assert capsys.readouterr().err == ""


def test_several_tables_are_compared_by_their_rows(
  tmp_path, capsys, monkeypatch
):
  tables = {"a": [{"part": "x", "us": 1.0}], "b": [{"group": 4, "us": 2.0}]}
  monkeypatch.setattr(commands, "run_collectives", lambda args: tables)
  assert main(["collectives", "--json"]) == 0
  path = tmp_path / "run.json"
  path.write_text(capsys.readouterr().out)
  tables["b"][0]["us"] = 3.0
  assert main(["collectives", "--compare", str(path)]) == 1
  assert capsys.readouterr().err == "4: us 2 -> 3 (1.50)\n"


def test_another_compiler_is_named(tmp_path, capsys, monkeypatch):
  def run(version):
    rows = [{"update": "a", "us": 1.0, "compiler": {"libtpu": version}}]
    return lambda args: {"title": rows}

  path = tmp_path / "run.json"
  monkeypatch.setattr(commands, "run_lars", run("1.2"))
  assert main(["lars", "--json"]) == 0
  path.write_text(capsys.readouterr().out)
  assert main(["lars", "--compare", str(path)]) == 0
  assert capsys.readouterr().err == ""
  monkeypatch.setattr(commands, "run_lars", run("1.3"))
  assert main(["lars", "--compare", str(path)]) == 0
  assert capsys.readouterr().err == "compiled by libtpu 1.2 -> libtpu 1.3\n"


def test_a_missing_run_is_one_line(tmp_path, capsys):
  path = tmp_path / "none.json"
  assert main(["lars", "--compare", str(path)]) == 2
  assert str(path) in capsys.readouterr().err
