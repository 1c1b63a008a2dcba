"""Runs of the smoke preset as processes of their own."""

import os
import subprocess
import sys
import time

from podscale.train.log import read_metrics


def start(workdir, *flags, devices=8):
  """One process; `devices` are those of its CPU."""
  environment = os.environ | {"JAX_PLATFORMS": "cpu"}
  environment.pop("JAX_NUM_CPU_DEVICES", None)
  return subprocess.Popen(
    [
      *(sys.executable, "-m", "podscale.train", "smoke"),
      *("--checkpoint-every-epochs", "0.5", "--workdir", str(workdir)),
      *("--cpu-devices", str(devices), *flags),
    ],
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(*processes):
  """What they said; all must end well."""
  said = [process.communicate()[0] for process in processes]
  assert [p.returncode for p in processes] == [0] * len(processes), said
  return said


def wait_for_step(process, step):
  for line in process.stdout:
    if line.startswith("step ") and int(line[5:].split("/")[0]) >= step:
      return
  raise AssertionError(f"it ended before step {step}")


def saved_steps(workdir):
  folders = (workdir / "checkpoints").glob("*")
  return {int(path.name) for path in folders if path.name.isdigit()}


def wait_for_checkpoint(workdir, *processes):
  """Another than are there; or until a process has ended."""
  before = saved_steps(workdir)
  while saved_steps(workdir) <= before:
    if any(process.poll() is not None for process in processes):
      return
    time.sleep(0.02)


def records(workdir, kind):
  found = read_metrics(workdir / "metrics.jsonl")
  return [record for record in found if record["kind"] == kind]
