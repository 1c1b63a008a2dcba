"""The command line of the benchmarks."""

import json

import pytest

from podscale.bench.__main__ import main


@pytest.mark.parametrize(
  ("words", "message"),
  [
    ([], "required: BENCHMARK"),
    (["stp"], "invalid choice: 'stp'"),
    (["step", "--runs", "0"], "must be at least 1, got 0"),
    (["kernels", "--batch-size", "many"], "many"),
    (["step", "--model", "b9"], "invalid choice: 'b9'"),
    (["step", "--model", "all"], "invalid choice: 'all'"),
    (["kernels", "--chip", "v9"], "invalid choice: 'v9'"),
    (["lars", "--topology", "2x2"], "--topology needs a --chip"),
  ],
)
def test_mistakes_are_one_line_and_exit_2(words, message, capsys):
  with pytest.raises(SystemExit) as exit:
    main(words)
  assert exit.value.code == 2
  assert message in capsys.readouterr().err.splitlines()[-1]


def test_an_estimate_has_the_models_own_resolution(capsys):
  assert main(["step", "--chip", "v5e", "--resolution", "64"]) == 2
  assert "leave --resolution out" in capsys.readouterr().err


def test_all_models_have_their_own_resolutions(capsys):
  words = ["kernels", "--chip", "v5e", "--model", "all", "--resolution", "64"]
  assert main(words) == 2
  assert "leave --resolution out" in capsys.readouterr().err


@pytest.mark.slow
def test_kernels_prints_a_row_for_each_layer_as_json(capsys):
  words = "kernels --resolution 32 --batch-size 2 --runs 1 --json"
  assert main(words.split()) == 0
  rows = json.loads(capsys.readouterr().out)
  assert len(rows) == 12
  assert set(rows[0]) == {
    *("layer", "plain_s", "podscale_s", "ratio", "difference"),
    *("peak_bytes", "clock", "plain", "podscale"),
  }
