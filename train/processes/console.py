"""The console of a run, which outlives the reader of its lines."""

import contextlib
import os
import sys

from rich.console import Console


class RunConsole(Console):
  """A console whose closed pipe does not end the run.

  Rich ends a process whose standard output has no reader any more, as behind
  `| head` or when `tee` was killed. A run goes on: its log is in the workdir.
  """

  def on_broken_pipe(self) -> None:
    """Print nothing from now on, and say so on standard error."""
    self.quiet = True
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    with contextlib.suppress(OSError):  # closed as well
      print(
        "podscale-train: nothing reads the standard output any more; the run "
        "goes on, and logs to its workdir",
        file=sys.stderr,
        flush=True,
      )
