"""Whose a workdir is, and that nothing in it leads out of it."""

import dataclasses
import json

import pytest

from podscale.train.config import (
  BatchNormConfig,
  Config,
  OptimizerConfig,
  ScheduleConfig,
)
from podscale.train.errors import UsageError
from podscale.train.workdir import check_settings


def test_the_first_start_records_all_settings(tmp_path):
  config = Config(batch_size=64)
  check_settings(tmp_path / "new" / "run", config)
  record = json.loads((tmp_path / "new" / "run" / "config.json").read_text())
  assert record["settings"] == dataclasses.asdict(config)


def test_the_same_settings_resume(tmp_path):
  check_settings(tmp_path, Config())
  before = (tmp_path / "config.json").read_bytes()
  check_settings(tmp_path, Config())
  check_settings(
    tmp_path,
    Config(
      workdir=str(tmp_path),
      log_every_steps=1,
      keep_checkpoints=9,
      checkpoint_every_epochs=0.5,
      eval_every_epochs=3.0,
      eval_batch_size=100,
    ),
  )
  assert (tmp_path / "config.json").read_bytes() == before


def test_other_settings_are_refused_and_named(tmp_path):
  check_settings(tmp_path, Config())
  before = (tmp_path / "config.json").read_bytes()
  with pytest.raises(UsageError) as error:
    check_settings(tmp_path, Config(optimizer=OptimizerConfig(momentum=0.95)))
  assert str(error.value) == (
    f"{tmp_path} holds a run with other settings (optimizer.momentum: 0.9 "
    "there, 0.95 now); resume it with its own, or choose another --workdir"
  )
  assert (tmp_path / "config.json").read_bytes() == before


def test_only_the_first_few_differing_settings_are_named(tmp_path):
  check_settings(tmp_path, Config())
  changed = Config(
    batch_size=8,
    epochs=1.0,
    seed=1,
    label_smoothing=0.0,
    ema_decay=0.9,
    batch_norm=BatchNormConfig(momentum=0.9),
    schedule=ScheduleConfig(power=3.0),
  )
  with pytest.raises(UsageError) as error:
    check_settings(tmp_path, changed)
  assert "batch_size: 4096 there, 8 now" in str(error.value)
  assert "and 2 more)" in str(error.value)
  assert "power" not in str(error.value)


@pytest.mark.parametrize(
  "name, content",
  [
    ("thesis.txt", "words"),
    ("config.json", '{"model_type": "another program\'s"}'),
    ("config.json", '{"podscale": "0.1.0", "set'),
    ("config.json", "[]"),
    ("config.json", "[" * 100_000),
    ("config.json", '{"podscale": "0.1.0", "settings": ["hostile"]}'),
  ],
)
def test_a_folder_of_something_else_is_refused(tmp_path, name, content):
  (tmp_path / name).write_text(content)
  with pytest.raises(UsageError, match="not empty and has no config.json"):
    check_settings(tmp_path, Config())
  assert [path.name for path in tmp_path.iterdir()] == [name]
  assert (tmp_path / name).read_text() == content


def test_an_unwritable_workdir_is_named(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(UsageError, match="file/run: Not a directory"):
    check_settings(tmp_path / "file" / "run", Config())
  with pytest.raises(UsageError, match="file: File exists"):
    check_settings(tmp_path / "file", Config())


@pytest.mark.parametrize(
  "name", ["config.json.tmp", "checkpoints", "checkpoints/5", "curves.png"]
)
def test_a_link_that_leads_out_is_refused(tmp_path, name):
  """Somebody else's workdir: what a run writes would land elsewhere."""
  workdir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
  check_settings(workdir, Config())
  elsewhere.mkdir()
  link = workdir / name
  link.parent.mkdir(exist_ok=True)
  link.symlink_to(elsewhere)
  with pytest.raises(UsageError, match=f"{link} is a link to {elsewhere}"):
    check_settings(workdir, Config())
  assert list(elsewhere.iterdir()) == []


def test_a_link_to_the_workdir_and_inside_it_is_not(tmp_path):
  (tmp_path / "disk").mkdir()
  workdir = tmp_path / "run"
  workdir.symlink_to(tmp_path / "disk")
  check_settings(workdir, Config())
  (workdir / "latest").symlink_to("config.json")
  check_settings(workdir, Config())
