"""A line from a process that is ended before it can say one.

SIGKILL, the system when it is short of memory, and JAX when another process is
missing all end a process where it is. So a helper waits beside it, and speaks
when it is gone without a goodbye. The helper runs this file by itself, so that
it starts in milliseconds and needs no JAX.
"""

import atexit
import contextlib
import os
import signal
import subprocess
import sys
from typing import NoReturn

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
  if _helper and _helper.stdin:
    with contextlib.suppress(BrokenPipeError):
      _helper.stdin.write(process.encode())


# JAX can still end a process in what it does at exit. The first that is
# registered is the last that is called, so this is imported before JAX.
@atexit.register
def goodbye() -> None:
  """Ends the helper without a word; for a process that has said its own."""
  global _helper
  if _helper:
    _helper.communicate(b"\n")
    _helper = None


def leave(code: int) -> NoReturn:
  """End the process at once, whatever its threads are at."""
  goodbye()
  sys.stdout.flush()
  os._exit(code)


def _wait_and_speak() -> None:
  for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)  # those the process may outlive
  said = sys.stdin.readline()
  if not said.endswith("\n"):
    print(
      f"podscale-train: {said or 'a process'} was killed or has crashed, or "
      "JAX ended it as another one is missing; start the run again with the "
      "same --workdir",
      file=sys.stderr,
    )


if __name__ == "__main__":
  _wait_and_speak()
