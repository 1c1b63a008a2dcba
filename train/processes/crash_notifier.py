"""A line from a process that is ended before it can say one.

SIGKILL, the system when it is short of memory, and JAX when another process is
missing all end a process where it is. So a helper waits beside it, and speaks
when it is gone without a goodbye. The helper runs this file by itself, so that
it starts in milliseconds and needs no JAX.
"""

import atexit
import contextlib
import signal
import subprocess
import sys
from pathlib import Path

_helper: subprocess.Popen[bytes] | None = None


def prepare() -> None:
  """Starts the helper; where that fails it is said, and the run goes on."""
  global _helper
  command = [sys.executable, "-I", "-S", __file__]
  try:
    _helper = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0)
  except OSError as error:
    print(f"no last words, should this be killed: {error}", file=sys.stderr)


def name(process: str) -> None:
  """Says whose last words they are, once that is known."""
  _tell("name", process)


def name_file(path: Path) -> None:
  """Says where its libraries' lines are, among them why it has crashed."""
  _tell("file", str(path))


def _tell(what: str, text: str) -> None:
  if _helper and _helper.stdin:
    with contextlib.suppress(BrokenPipeError):
      _helper.stdin.write(f"{what} {text}\n".encode())


# JAX can still end a process in what it does at exit. The first that is
# registered is the last that is called, so this is imported before JAX.
@atexit.register
def goodbye() -> None:
  """Ends the helper without a word; for a process that has said its own."""
  global _helper
  if _helper:
    _helper.communicate(b"goodbye\n")
    _helper = None


def _wait_and_speak() -> None:
  for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)  # those the process may outlive
  told = dict(line.rstrip("\n").partition(" ")[::2] for line in sys.stdin)
  if "goodbye" in told:
    return
  line = "the run was killed or has crashed"
  if "name" in told:
    line = (
      f"{told['name']} was killed or has crashed, or JAX ended it as another "
      "one is missing"
    )
  if "file" in told:
    line += f"; what its libraries printed is in {told['file']}"
  line += "; start the run again with the same --workdir"
  print(f"podscale-train: {line}", file=sys.stderr)


if __name__ == "__main__":
  _wait_and_speak()
