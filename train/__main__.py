"""Command line: `python -m podscale.train PRESET [--flag value]`."""

if __name__ == "__main__" and __package__ == "train":
  # `python -m train` in a checkout runs the same program by its real name.
  import runpy

  runpy.run_module("podscale.train", run_name="__main__", alter_sys=True)
  raise SystemExit(0)

import os
import sys
from collections.abc import Sequence

from .errors import NonFiniteError, SaveError, UsageError, printable
from .processes import crash_notifier, terminal  # before JAX, see goodbye
from .processes.signals import Stop
from .settings.arguments import parse
from .settings.config import Config


def main(argv: Sequence[str] | None = None) -> int:
  """Parse the arguments and train; return the exit code.

  Args:
    argv: Words of the command line; None takes `sys.argv`.
  """
  words = sys.argv[1:] if argv is None else argv
  try:
    if words[:1] == ["diff"]:
      return _diff(words[1:])
    config = _parse(words)
    crash_notifier.prepare()
    terminal.divert()
    stop = Stop(terminal.leave)
    stop.listen()
    # Imported late, so that --help does not wait for JAX.
    from .loop import train
    from .processes.devices import configure_jax
    from .processes.distributed import join, leaving_together

    configure_jax(config)
    print(f"distributed: {join(config)}", flush=True)
    stop.joined()
    with leaving_together(stop, _say):
      train(config, stop=stop)
  except (UsageError, NonFiniteError, SaveError) as error:
    return _say(error)
  return 0


def _parse(words: Sequence[str]) -> Config:
  """Parse the arguments; exit silently if the pipe of `--help` closes."""
  try:
    try:
      return parse(words)
    finally:
      sys.stdout.flush()
  except BrokenPipeError:
    # Python flushes once more at the end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(1) from None


def _say(error: Exception) -> int:
  """Print an error as one line; return the exit code."""
  print(f"podscale-train: {printable(str(error))}", file=sys.stderr, flush=True)
  return 2 if isinstance(error, UsageError) else 1


def _diff(workdirs: Sequence[str]) -> int:
  """Print the first difference of two runs; return 1 if there is one."""
  from .records.diff import diff

  if len(workdirs) != 2:
    raise UsageError(
      f"diff takes two workdirs, got {len(workdirs)}; usage: "
      "python -m podscale.train diff RUN_A RUN_B"
    )
  lines = diff(*workdirs)
  print("\n".join(lines) or "the same, bit for bit")
  return 1 if lines else 0


if __name__ == "__main__":
  raise SystemExit(main())
