"""Notifier that prints a line for a process that was killed or has crashed.

SIGKILL, the system's out-of-memory killer, and JAX after the loss of another
process all end a process at once. A helper process waits beside it and prints a
line if the process ends without `goodbye`. The helper runs only this file,
without JAX, so it starts within milliseconds.
"""

import atexit
import contextlib
import signal
import subprocess
import sys
from pathlib import Path

_helper: subprocess.Popen[bytes] | None = None


def prepare() -> None:
  """Start the helper; if that fails, print a warning and continue."""
  global _helper
  command = [sys.executable, "-I", "-S", __file__]
  try:
    _helper = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0)
  except OSError as error:
    print(
      f"podscale-train: cannot start the crash notifier: {error}",
      file=sys.stderr,
    )


def name(process: str) -> None:
  """Tell the helper the name of this process.

  Args:
    process: Name, such as "process 1 of 2".
  """
  _tell("name", process)


def name_file(path: Path) -> None:
  """Tell the helper the file of the libraries' output.

  Args:
    path: File that may hold the cause of a crash.
  """
  _tell("file", str(path))


def _tell(what: str, text: str) -> None:
  if _helper and _helper.stdin:
    with contextlib.suppress(BrokenPipeError):
      _helper.stdin.write(f"{what} {text}\n".encode())


# JAX's exit handlers can still end the process. Python calls the handler that
# was registered first last, so this module must be imported before JAX.
@atexit.register
def goodbye() -> None:
  """End the helper silently, because this process ends in an orderly way."""
  global _helper
  if _helper:
    _helper.communicate(b"goodbye\n")
    _helper = None


def _wait_and_notify() -> None:
  for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)  # the process may survive these
  messages = dict(line.rstrip("\n").partition(" ")[::2] for line in sys.stdin)
  if "goodbye" in messages:
    return
  line = "the run was killed or has crashed"
  if "name" in messages:
    line = (
      f"{messages['name']} was killed or has crashed, or JAX ended it because "
      "another process is missing"
    )
  if "file" in messages:
    line += f"; its libraries' output is in {messages['file']}"
  line += "; start the run again with the same --workdir"
  print(f"podscale-train: {line}", file=sys.stderr)


if __name__ == "__main__":
  _wait_and_notify()
