"""Line about a process that was killed, and silence about others."""

import subprocess
import sys

import pytest

from podscale.train.processes import crash_notifier as crash_notifier

LINE = (
  "podscale-train: {} was killed or has crashed, or JAX ended it because "
  "another process is missing; start the run again with the same --workdir\n"
)
OF_ONE = (
  "podscale-train: the run was killed or has crashed; start the run again "
  "with the same --workdir\n"
)
KILL = "os.kill(os.getpid(), signal.SIGKILL)\n"
PREPARE = "crash_notifier.prepare()\n"
NAME = "crash_notifier.name('process 1 of 2')\n"


def said_by(program):
  """Run a program until it and its helper have ended; return their errors."""
  head = (
    "import os, signal, time\n"
    "from podscale.train.processes import crash_notifier\n"
  )
  return subprocess.run(
    [sys.executable, "-c", head + program], capture_output=True, text=True
  ).stderr


@pytest.mark.parametrize("end", [KILL, "os.abort()"])
def test_a_process_that_is_ended_leaves_one_line(end):
  assert said_by(PREPARE + NAME + end) == LINE.format("process 1 of 2")


def test_one_that_has_no_name_yet():
  assert said_by(PREPARE + KILL) == OF_ONE


@pytest.mark.parametrize(
  "end", ["", "raise SystemExit(2)", "crash_notifier.goodbye(); os._exit(1)"]
)
@pytest.mark.parametrize("name", ["", NAME])
def test_a_process_that_ends_itself_leaves_none(name, end):
  assert said_by(PREPARE + name + end) == ""


def test_an_exception_is_all_that_is_said():
  said = said_by(PREPARE + NAME + "raise ValueError('mine')")
  assert said.startswith("Traceback")
  assert said.endswith("ValueError: mine\n")


def test_after_the_goodbye_nothing_is_left():
  assert said_by(PREPARE + "crash_notifier.goodbye()\n" + NAME + KILL) == ""


def test_at_exit_it_outlasts_what_was_registered_later():
  end = "import atexit\natexit.register(os.abort)"
  assert said_by(PREPARE + end) == OF_ONE


def test_the_command_line_has_it_before_jax():
  """The helper must also outlast JAX's exit handlers."""
  code = (
    "import sys, podscale.train.__main__; "
    "assert 'podscale.train.processes.crash_notifier' in sys.modules; "
    "assert 'jax' not in sys.modules"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", ["SIGHUP", "SIGINT", "SIGTERM"])
def test_a_signal_to_all_does_not_end_the_helper(number):
  send = f"""
helper = crash_notifier._helper.pid
def ignored():
  with open(f"/proc/{{helper}}/status") as file:
    (row,) = [row for row in file if row.startswith("SigIgn:")]
  return int(row.split()[1], 16)
while not ignored() >> (signal.SIGTERM - 1) & 1:
  time.sleep(0.01)
os.kill(helper, signal.{number})
"""
  said = said_by(PREPARE + NAME + send + KILL)
  assert said == LINE.format("process 1 of 2")


def test_a_helper_that_is_gone_does_no_harm():
  end = "crash_notifier._helper.kill()\ncrash_notifier._helper.wait()\n"
  assert said_by(PREPARE + end + NAME) == ""


def test_a_helper_that_cannot_start_is_said(monkeypatch, capsys):
  monkeypatch.setattr(sys, "executable", "/absent/python")
  crash_notifier.prepare()
  crash_notifier.name("process 1 of 2")
  crash_notifier.goodbye()
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("podscale-train: cannot start the crash notifier: ")
  assert "/absent/python" in line
