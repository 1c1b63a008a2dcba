"""Runs of the smoke preset in separate processes."""

import os
import signal
import subprocess
import sys
import time

from podscale.train.records.metrics_file import read_metrics


def start(workdir, *flags, devices=8):
  """Start a process with this number of CPU devices."""
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


def run_of(code, workdir, *flags):
  """Run `code`, then the command line; `code` prints "HERE" where it hangs."""
  program = (
    f"import sys, threading\n{code}\nfrom podscale.train import __main__"
  )
  words = ["smoke", "--cpu-devices", "2", "--workdir", str(workdir), *flags]
  return subprocess.Popen(
    [sys.executable, "-c", f"{program}\nsys.exit(__main__.main({words}))"],
    env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def stop_at(process, text, after=0, signalled=None):
  """Send SIGTERM after a line with `text`, to `process` or to `signalled`.

  Returns:
    Lines printed after the signal, seconds to the first line, and seconds to
    the end of the process.
  """
  with process:
    said = ""
    for line in process.stdout:
      said += line
      if text in line:
        break
    else:
      raise AssertionError(said)
    time.sleep(after)
    begin = time.monotonic()
    (signalled or process).send_signal(signal.SIGTERM)
    lines = [process.stdout.readline()]
    first = time.monotonic() - begin
    lines += process.stdout.readlines()
  return lines, first, time.monotonic() - begin


def finish(*processes):
  """Wait for all processes to succeed; return what each printed."""
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
  """Wait for a new checkpoint, or until a process has ended."""
  before = saved_steps(workdir)
  while saved_steps(workdir) <= before:
    if any(process.poll() is not None for process in processes):
      return
    time.sleep(0.02)


def records(workdir, kind):
  found = read_metrics(workdir / "metrics.jsonl")
  return [record for record in found if record["kind"] == kind]
