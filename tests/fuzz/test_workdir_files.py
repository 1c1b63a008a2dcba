"""Files of a workdir: checkpoints, metrics.jsonl and config.json."""

import contextlib
import io
import json
import shutil
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from support.mutants import REFUSED, json_mutants, mutants

from podscale.train.records.checkpoint import Checkpoints
from podscale.train.records.lock import WorkdirLock
from podscale.train.records.metrics_file import read_metrics
from podscale.train.records.report import print_summary, write_curves
from podscale.train.records.workdir import claim
from podscale.train.settings.config import Config

_fuzz = settings(
  max_examples=3000, deadline=200000, suppress_health_check=list(HealthCheck)
)

_RECORDS = [
  {
    "kind": "run",
    "step": 0,
    "lost_seconds": 0.0,
    "preset": "smoke",
    "settings": {"seed": 0},
    "versions": {"jax": "1"},
    "device_kind": "cpu",
    "device_count": 8,
    "process_count": 1,
    "git_revision": None,
    "time": 1.0,
  },
  {
    "kind": "train",
    "step": 4,
    "epoch": 0.5,
    "loss": 2.0,
    "learning_rate": 0.1,
    "images_per_s": 10.0,
    "data_wait": 0.0,
    "gradient_norm": 1.0,
    "time": 2.0,
  },
  {
    "kind": "eval",
    "split": "test",
    "step": 8,
    "epoch": 1.0,
    "examples": 10,
    "correct": 5,
    "correct_top5": 10,
    "top1": 0.5,
    "top5": 1.0,
    "loss": 1.0,
    "time": 3.0,
  },
  {"kind": "times", "step": 8, "seconds": {"steps": 2.0}, "time": 4.0},
]


def as_lines(records):
  return "".join(json.dumps(record) + "\n" for record in records).encode()


def test_metrics(tally):
  """Any records that are read can be plotted and summarised."""
  with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)

    def check(text):
      (folder / "metrics.jsonl").write_bytes(text)
      records = tally.read(lambda: read_metrics(folder / "metrics.jsonl"))
      if records is not None:
        print_summary(folder, Console(file=io.StringIO()))
        tally.compare(records, _json_lines(text))

    @_fuzz
    @given(mutants([as_lines(_RECORDS)]))
    def run_bytes(text):
      check(text)

    @_fuzz
    @given(json_mutants(_RECORDS))
    def run_values(records):
      if isinstance(records, list):
        check(as_lines(records))

    @settings(_fuzz, max_examples=30)
    @given(json_mutants(_RECORDS))
    def run_curves(records):
      (folder / "metrics.jsonl").write_bytes(
        as_lines(records if isinstance(records, list) else [records])
      )
      if tally.read(lambda: read_metrics(folder / "metrics.jsonl")) is not None:
        write_curves(folder)
        tally.compare((folder / "curves.png").is_file(), True)

    run_bytes()
    run_values()
    run_curves()


def _json_lines(text):
  *lines, tail = text.split(b"\n")
  records = [json.loads(line) for line in lines]
  try:
    last = json.loads(tail)
  except ValueError:
    return records
  return [*records, last] if isinstance(last, dict) else records


def test_config(tally):
  """A workdir with damaged settings is refused, or has the same settings."""
  config = Config()
  data = {"train": {"examples": 9, "listing": "a"}}

  def start(folder):
    with contextlib.closing(WorkdirLock(folder)) as lock:
      return claim(folder, config, data, lock)

  with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    start(folder)
    path = folder / "config.json"
    original = path.read_bytes()

    def check(text):
      path.write_bytes(text)
      if tally.read(lambda: start(folder) or True):
        # Nothing that changes the training may have been another.
        start(folder)
        tally.compare(path.read_bytes(), text)

    @_fuzz
    @given(mutants([original]))
    def run_bytes(text):
      check(text)

    @_fuzz
    @given(json_mutants(json.loads(original)))
    def run_values(record):
      check(json.dumps(record).encode())

    run_bytes()
    run_values()


def _state(value):
  return {"weight": jnp.full((4, 8), value), "step": jnp.int32(value)}


def test_checkpoints(tally):
  """A damaged checkpoint is put aside for the one before, or is whole."""
  data = {n: {"position": n, "seed": 0, "examples": 9} for n in (1, 2)}
  with tempfile.TemporaryDirectory() as folder:
    original = Path(folder) / "original"
    with Checkpoints(original, keep=2) as checkpoints:
      for step in (1, 2):
        checkpoints.save(step, _state(step), data[step])
        checkpoints.wait()
    files = sorted(p for p in (original / "2").rglob("*") if p.is_file())

    def read(copy):
      with Checkpoints(copy, keep=2) as checkpoints:
        return checkpoints.restore_latest(_state(0))

    @settings(_fuzz, max_examples=800)
    @given(st.data())
    def run(drawn):
      path = drawn.draw(st.sampled_from(files))
      damaged = drawn.draw(mutants([path.read_bytes()]))
      copy = Path(folder) / "copy"
      shutil.rmtree(copy, ignore_errors=True)
      shutil.copytree(original, copy)
      (copy / path.relative_to(original)).write_bytes(damaged)
      restored = tally.read(lambda: read(copy))
      if restored is None:
        return
      if restored.step == 1:
        assert restored.damaged, "an older one without a word"
        tally.counts[REFUSED] += 1
      else:
        tally.compare(
          jax.tree.map(np.ndarray.tolist, jax.device_get(restored.state)),
          jax.tree.map(np.ndarray.tolist, jax.device_get(_state(2))),
        )
      assert restored.data_state == data[restored.step]

    run()
