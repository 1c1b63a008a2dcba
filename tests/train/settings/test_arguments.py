"""Command line: flags, presets, help and errors."""

import os
import subprocess
import sys

import pytest

from podscale.train.__main__ import main
from podscale.train.errors import UsageError
from podscale.train.settings.arguments import parse
from podscale.train.settings.presets import PRESETS


def test_a_preset_alone_is_the_preset():
  for name, config in PRESETS.items():
    assert parse([name]) == config


@pytest.mark.parametrize("words", [["--help"], ["b0", "--help"]])
def test_help_whose_reader_is_gone_ends_without_a_word(words):
  reader, writer = os.pipe()
  os.close(reader)
  done = subprocess.run(
    [sys.executable, "-m", "podscale.train", *words],
    stdout=writer,
    stderr=subprocess.PIPE,
  )
  os.close(writer)
  assert (done.returncode, done.stderr) == (1, b"")


def test_flags_change_nested_settings():
  config = parse(
    ["demo", "--optimizer.momentum", "0.95", "--data.no-flip", "--seed=7"]
  )
  assert config.optimizer.momentum == 0.95
  assert config.data.flip is False
  assert config.seed == 7
  assert config.schedule == PRESETS["demo"].schedule


@pytest.mark.parametrize(
  ("words", "said"),
  [
    (["dmo"], "unknown preset 'dmo'; did you mean 'demo'"),
    (["resnet"], "unknown preset 'resnet'; choose one of: smoke, demo, b0"),
    (["demo", "--sed", "3"], "unknown flag '--sed'; did you mean '--seed'"),
    (["demo", "--optimizer.momentm=1"], "did you mean '--optimizer.momentum'"),
    (["demo", "--seed", "x"], "--seed: invalid literal"),
    (["demo", "--seed"], "Missing value for argument '--seed'"),
    (
      ["demo", "--epochs", "-1"],
      "--epochs must be from 1e-06 to 1,000,000, got -1",
    ),
    (["demo", "--model.dtype", "f16"], "invalid choice 'f16'"),
    (["--seed", "3"], "the preset must come first, got --seed"),
    (["demo", "--preset", "b0"], "the preset is demo"),
  ],
)
def test_a_mistake_is_one_line(words, said):
  with pytest.raises(UsageError) as error:
    parse(words)
  assert said in str(error.value)
  assert "\n" not in str(error.value)


def test_main_prints_the_mistake_and_returns_2(capsys):
  assert main(["b5-64"]) == 2
  said = capsys.readouterr()
  assert said.out == ""
  assert said.err == (
    "podscale-train: unknown preset 'b5-64'; did you mean 'b5-64k' or 'b5-4k' "
    "or 'b5-16k'?\n"
  )


def test_help_lists_every_preset(capsys):
  with pytest.raises(SystemExit) as done:
    parse(["--help"])
  assert done.value.code == 0
  said = capsys.readouterr().out
  assert all(f"  {name} " in said for name in PRESETS)


def test_help_of_a_preset_lists_its_flags(capsys):
  with pytest.raises(SystemExit) as done:
    parse(["b2-32k", "--help"])
  assert done.value.code == 0
  said = capsys.readouterr().out
  assert "--optimizer.lars-weight-decay" in said
  assert "Table 2" in said


def test_parsing_imports_no_jax():
  code = (
    "import sys; from podscale.train.settings.arguments import parse; "
    "parse(['demo']); "
    "sys.exit('jax' in sys.modules)"
  )
  assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_program_exits_with_2_and_no_trace(tmp_path):
  done = subprocess.run(
    [sys.executable, "-m", "podscale.train", "demo", "--batch-size", "100"],
    capture_output=True,
    text=True,
    cwd=tmp_path,
    env=os.environ | {"JAX_PLATFORMS": "cpu"},
  )
  assert done.returncode == 2
  assert done.stderr == (
    "podscale-train: --batch-size 100 does not divide by 8 devices; use 96 or "
    "104\n"
  )
  assert list(tmp_path.iterdir()) == []
