"""Claim of a workdir, and checks of its links."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys

import pytest
from support.full_disk import files_up_to

from podscale.train.errors import UsageError
from podscale.train.records.lock import LOCK, WorkdirLock
from podscale.train.records.workdir import claim
from podscale.train.settings.config import (
  BatchNormConfig,
  Config,
  DataConfig,
  OptimizerConfig,
  ScheduleConfig,
)

DATA = {
  "train": {"examples": 130, "listing": "0123456789abcdef"},
  "test": {"examples": 20, "listing": "fedcba9876543210"},
}


def claimed(workdir, config, data=DATA):
  """Claim a workdir and release its lock; return the notes."""
  with contextlib.closing(WorkdirLock(workdir)) as lock:
    return claim(workdir, config, data, lock)


def test_the_first_start_records_all_settings(tmp_path):
  config = Config(batch_size=64)
  claimed(tmp_path / "new" / "run", config)
  record = json.loads((tmp_path / "new" / "run" / "config.json").read_text())
  assert record["settings"] == dataclasses.asdict(config)


def test_the_same_settings_resume(tmp_path):
  claimed(tmp_path, Config())
  before = (tmp_path / "config.json").read_bytes()
  claimed(tmp_path, Config())
  claimed(
    tmp_path,
    Config(
      workdir=str(tmp_path),
      log_every_steps=1,
      keep_checkpoints=9,
      checkpoint_every_epochs=0.5,
      eval_every_epochs=3.0,
      eval_batch_size=100,
      data=DataConfig(class_names="names.txt", skip_bad=3),
    ),
  )
  assert (tmp_path / "config.json").read_bytes() == before


def test_other_settings_are_refused_and_named(tmp_path):
  claimed(tmp_path, Config())
  before = (tmp_path / "config.json").read_bytes()
  with pytest.raises(UsageError) as error:
    claimed(tmp_path, Config(optimizer=OptimizerConfig(momentum=0.95)))
  assert str(error.value) == (
    f"{tmp_path} holds a run with other settings (optimizer.momentum: 0.9 "
    "there, 0.95 now); use its settings to resume it, or choose another "
    "--workdir"
  )
  assert (tmp_path / "config.json").read_bytes() == before


def test_only_the_first_few_differing_settings_are_named(tmp_path):
  claimed(tmp_path, Config())
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
    claimed(tmp_path, changed)
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
    ("config.json", '{"podscale": "1", "settings": ' + '{"a":' * 900),
    (
      "config.json",
      '{"podscale": "1", "settings": ' + '{"a":' * 5000 + "}" * 5001,
    ),
    ("config.json", '{"podscale": "1", "settings": {}, "data": [1]}'),
    ("config.json", '{"podscale": "1", "settings": {}, "data": {"a": 1}}'),
    ("config.json", '{"podscale": "1", "settings": {}, "data": {"a": {}}}'),
    ("config.json", '{"podscale": "0.1.0", "settings": ["hostile"]}'),
  ],
)
def test_a_folder_of_something_else_is_refused(tmp_path, name, content):
  (tmp_path / name).write_text(content)
  with pytest.raises(UsageError, match="not empty and has no config.json"):
    claimed(tmp_path, Config())
  assert [path.name for path in tmp_path.iterdir()] == [name]
  assert (tmp_path / name).read_text() == content


def test_an_unwritable_workdir_is_named(tmp_path):
  (tmp_path / "file").touch()
  for path in (tmp_path / "file" / "run", tmp_path / "file"):
    with pytest.raises(UsageError, match=f"{path}: {tmp_path}/file is a file"):
      claimed(path, Config())


@pytest.mark.parametrize(
  "name", ["config.json.tmp", "checkpoints", "checkpoints/5", "curves.png"]
)
def test_a_link_that_leads_out_is_refused(tmp_path, name):
  """In a stranger's workdir, a link could redirect what a run writes."""
  workdir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
  claimed(workdir, Config())
  elsewhere.mkdir()
  link = workdir / name
  link.parent.mkdir(exist_ok=True)
  link.symlink_to(elsewhere)
  with pytest.raises(UsageError, match=f"{link} is a link to {elsewhere}"):
    claimed(workdir, Config())
  assert list(elsewhere.iterdir()) == []


def test_a_link_to_the_workdir_and_inside_it_is_not(tmp_path):
  (tmp_path / "disk").mkdir()
  workdir = tmp_path / "run"
  workdir.symlink_to(tmp_path / "disk")
  claimed(workdir, Config())
  (workdir / "latest").symlink_to("config.json")
  claimed(workdir, Config())


@pytest.mark.parametrize(
  "name", ["config.json", "metrics.jsonl", "lock", "checkpoints/9/record"]
)
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path, name):
  path = tmp_path / name
  path.parent.mkdir(parents=True, exist_ok=True)
  os.mkfifo(path)
  with pytest.raises(UsageError, match=f"{path} is neither a file nor"):
    claimed(tmp_path, Config())


def test_links_that_lead_back_to_themselves_are_refused(tmp_path):
  workdir = tmp_path / "run"
  claimed(workdir, Config())
  (workdir / "a").symlink_to("b")
  (workdir / "b").symlink_to("a")
  with pytest.raises(UsageError) as error:
    claimed(workdir, Config())
  assert "is a link that leads back to itself; remove it" in str(error.value)
  assert "\n" not in str(error.value)


def test_a_link_to_nothing_inside_the_workdir_is_left_alone(tmp_path):
  claimed(tmp_path, Config())
  (tmp_path / "latest").symlink_to("checkpoints/9")
  claimed(tmp_path, Config())


@pytest.mark.parametrize("below", ["", "below"])
@pytest.mark.parametrize(
  "target, said",
  [
    ("nowhere", "is a link to nowhere, which does not exist"),
    ("run", "is a link to run, which leads back to itself"),
    ("file", "is a link to file, a file"),
  ],
)
def test_a_workdir_that_is_a_link_to_no_folder_is_named(
  tmp_path, target, said, below
):
  (tmp_path / "file").touch()
  (tmp_path / "run").symlink_to(target)
  with pytest.raises(UsageError, match=f"{tmp_path}/run {said}") as error:
    claimed(tmp_path / "run" / below, Config())
  assert "\n" not in str(error.value)


def test_only_one_run_has_a_workdir(tmp_path):
  with contextlib.closing(WorkdirLock(tmp_path)) as lock:
    claim(tmp_path, Config(), DATA, lock)
    claim(tmp_path, Config(), DATA, lock)  # as a rollback does
    with pytest.raises(UsageError, match="in use by another run"):
      claimed(tmp_path, Config())
  claimed(tmp_path, Config())


def test_where_there_are_no_locks_a_line_says_so(tmp_path, monkeypatch):
  monkeypatch.setattr(WorkdirLock, "take", lambda self: "no lock on it: why")
  assert claimed(tmp_path, Config()) == [
    "no lock on it: why; no other run may use this workdir"
  ]


def with_data(path, **changes):
  return Config(data=DataConfig(path=path, **changes))


def test_data_that_has_moved_is_gone_on_with(tmp_path):
  """Converted data counts as moved: images and order are the same."""
  assert claimed(tmp_path, with_data("/disk/images")) == []
  assert claimed(tmp_path, with_data("/disk/images")) == []
  where = "in /disk/images and are in /ssd/converted now: the same images in"
  assert claimed(tmp_path, with_data("/ssd/converted")) == [
    f"the {split} images were {where} the same order" for split in DATA
  ]
  assert claimed(
    tmp_path, with_data("/disk/images", eval_path="/ssd/validation")
  ) == [
    "the test images were in /disk/images and are in /ssd/validation now: the "
    "same images in the same order"
  ]


def test_an_offset_of_labels_may_have_gone_into_a_conversion(tmp_path):
  claimed(tmp_path, with_data("/disk/images", label_offset=0))
  with pytest.raises(UsageError, match="label_offset: 0 there, None now"):
    claimed(tmp_path, with_data("/disk/images"))
  train, test = claimed(tmp_path, with_data("/ssd/converted"))
  assert "are in /ssd/converted now" in train and "the test images" in test


@pytest.mark.parametrize("path", ["/disk/images", "/ssd/others"])
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("change", [{"examples": 129}, {"listing": "abc"}])
def test_other_data_is_refused(tmp_path, path, split, change):
  claimed(tmp_path, with_data("/disk/images"))
  before = (tmp_path / "config.json").read_bytes()
  changed = DATA | {split: DATA[split] | change}
  with pytest.raises(UsageError, match=f"on other {split} images") as error:
    claimed(tmp_path, with_data(path), changed)
  text = str(error.value)
  assert "in /disk/images then" in text and f"in {path} now" in text
  assert "\n" not in text
  assert (tmp_path / "config.json").read_bytes() == before


def test_without_a_record_of_the_data_its_path_must_be_the_same(tmp_path):
  """Earlier versions did not record the data."""
  claimed(tmp_path, with_data("/disk/images"))
  path = tmp_path / "config.json"
  record = json.loads(path.read_text())
  del record["data"]
  path.write_text(json.dumps(record))
  assert claimed(tmp_path, with_data("/disk/images")) == []
  with pytest.raises(UsageError, match="data.path: /disk/images there"):
    claimed(tmp_path, with_data("/ssd/converted"))


def test_a_start_without_room_leaves_nothing_in_the_way(tmp_path):
  with (
    files_up_to(100),
    pytest.raises(UsageError, match="cannot write .*config.json: File too"),
  ):
    claimed(tmp_path, Config())
  assert [path.name for path in tmp_path.iterdir()] == [LOCK]
  claimed(tmp_path, Config())
  assert (tmp_path / "config.json").exists()


@pytest.mark.parametrize("moment", ["Path.replace", "os.fsync"])
def test_a_start_that_is_killed_leaves_nothing_in_the_way(tmp_path, moment):
  code = f"""
import contextlib, os, signal, sys
from pathlib import Path
from podscale.train.settings.config import Config
from podscale.train.records.lock import WorkdirLock
from podscale.train.records.workdir import claim
{moment} = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
claim(sys.argv[1], Config(), {DATA!r}, WorkdirLock(sys.argv[1]))
"""
  command = [sys.executable, "-c", code, str(tmp_path)]
  assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {LOCK, "config.json.tmp"}
  claimed(tmp_path, Config())
  assert {p.name for p in tmp_path.iterdir()} == {LOCK, "config.json"}


def test_empty_folders_of_ours_are_not_in_the_way(tmp_path):
  for name in ("checkpoints", "tensorboard"):
    (tmp_path / name).mkdir()
  (tmp_path / "metrics.jsonl.tmp").touch()
  claimed(tmp_path, Config())


@pytest.mark.parametrize(
  "name", ["checkpoints/5/state", "lock/x", "metrics.jsonl", "notes.tmp"]
)
def test_what_may_be_work_of_somebody_is_in_the_way(tmp_path, name):
  path = tmp_path / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.touch()
  with pytest.raises(UsageError, match="not empty and has no config.json"):
    claimed(tmp_path, Config())


def test_a_log_that_is_not_ours_is_refused_at_the_start(tmp_path):
  claimed(tmp_path, Config())
  (tmp_path / "metrics.jsonl").write_text('{"kind": "note"}\n')
  with pytest.raises(UsageError, match="line 1 of .*metrics.jsonl is not a"):
    claimed(tmp_path, Config())
