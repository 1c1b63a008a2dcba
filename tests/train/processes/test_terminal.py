"""Libraries' output goes to a file, the run's lines to the terminal."""

import errno
import os
import pty
import subprocess
import sys

import pytest

HEAD = """
import logging, os, sys, warnings
from pathlib import Path
from podscale.train.processes import crash_notifier, terminal
crash_notifier.prepare()
terminal.divert()
"""
NOISE = """
os.write(1, b"to descriptor 1\\n")
os.write(2, b"to descriptor 2\\n")
os.system("echo of a child")
logging.getLogger("absl").error("by logging")
warnings.warn("by a warning")
print("ours")
print("our error", file=sys.stderr)
"""
NOISES = [
  *("to descriptor 1", "to descriptor 2", "of a child"),
  *("by logging", "by a warning"),
]


def done(program, tmp_path):
  return subprocess.run(
    [sys.executable, "-c", HEAD + program],
    capture_output=True,
    text=True,
    env=os.environ | {"TMPDIR": str(tmp_path)},
  )


def temporary(tmp_path):
  return list(tmp_path.glob("podscale-*.log"))


@pytest.mark.parametrize(
  ("process", "name"), [(0, "libraries.log"), (3, "libraries-3.log")]
)
def test_only_our_lines_are_on_the_terminal(tmp_path, process, name):
  workdir = tmp_path / "run"
  workdir.mkdir()
  keep = f"terminal.keep_in(Path({str(workdir)!r}), {process})\n"
  for end in ("", "terminal.leave(0)\n"):
    ended = done(NOISE + keep + NOISE + end, tmp_path)
    assert (ended.stdout, ended.stderr) == ("ours\n" * 2, "our error\n" * 2)
    assert ended.returncode == 0
    assert temporary(tmp_path) == []
  (path,) = workdir.iterdir()
  assert path.name == name
  text = path.read_text()
  # Before and after the claim of the workdir, in two processes.
  assert [text.count(noise) for noise in NOISES] == [4, 4, 4, 4, 4]
  assert "ours" not in text


@pytest.mark.parametrize(
  "end", ["", "raise SystemExit(2)", "terminal.leave(2)"]
)
def test_without_a_workdir_nothing_is_left(tmp_path, end):
  ended = done(NOISE + end, tmp_path)
  assert (ended.stdout, ended.stderr) == ("ours\n", "our error\n")
  assert temporary(tmp_path) == []


def test_a_stack_trace_of_our_own_is_on_the_terminal(tmp_path):
  ended = done(NOISE + "raise ValueError('mine')", tmp_path)
  assert ended.stderr.startswith("our error\nTraceback")
  assert ended.stderr.endswith("ValueError: mine\n")


@pytest.mark.parametrize("claimed", [False, True])
def test_a_crash_is_one_line_that_names_the_file(tmp_path, claimed):
  keep = f"terminal.keep_in(Path({str(tmp_path)!r}), 0)\n" * claimed
  ended = done(NOISE + keep + "os.abort()", tmp_path)
  paths = [tmp_path / "libraries.log"] if claimed else temporary(tmp_path)
  (path,) = paths
  assert ended.stderr == (
    "our error\n"
    "podscale-train: the run was killed or has crashed; its libraries' "
    f"output is in {path}; start the run again with the same --workdir\n"
  )
  assert "to descriptor 2" in path.read_text()


def test_a_long_file_of_earlier_processes_begins_anew(tmp_path):
  path = tmp_path / "libraries.log"
  path.write_bytes(b"old\n" * 2**19)
  done(NOISE + f"terminal.keep_in(Path({str(tmp_path)!r}), 0)\n", tmp_path)
  assert b"old" not in path.read_bytes()
  assert b"to descriptor 2" in path.read_bytes()


def test_a_workdir_that_takes_no_file_changes_nothing(tmp_path):
  keep = f"terminal.keep_in(Path({str(tmp_path / 'absent')!r}), 0)\n"
  ended = done(keep + NOISE, tmp_path)
  assert (ended.stdout, ended.stderr) == ("ours\n", "our error\n")
  assert temporary(tmp_path) == []


def everything(descriptor):
  """Read to the end; one read may return a part, also after the writer."""
  parts = []
  while not parts or parts[-1]:
    try:
      parts.append(os.read(descriptor, 1000))
    except OSError as error:  # a terminal's end, on Linux
      assert error.errno == errno.EIO
      break
  os.close(descriptor)
  return b"".join(parts)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_rich_sees_what_there_is(tmp_path, is_terminal):
  program = HEAD + (
    "from rich.console import Console\n"
    "print(sys.stdout.isatty(), sys.stderr.isatty(), Console().is_terminal)"
  )
  ours, theirs = pty.openpty() if is_terminal else os.pipe()
  subprocess.run(
    [sys.executable, "-c", program],
    check=True,
    stdout=theirs,
    stderr=theirs,
    env=os.environ | {"TERM": "xterm"},
  )
  os.close(theirs)
  assert everything(ours).split() == [str(is_terminal).encode()] * 3


def test_leaving_shows_the_cursor_that_a_bar_has_hidden(tmp_path):
  program = HEAD + (
    "from rich.progress import Progress\nProgress().start()\nterminal.leave(0)"
  )
  ours, theirs = pty.openpty()
  subprocess.run(
    [sys.executable, "-c", program],
    check=True,
    stdout=theirs,
    env=os.environ | {"TERM": "xterm"},
  )
  os.close(theirs)
  assert everything(ours).endswith(b"\x1b[?25h")
