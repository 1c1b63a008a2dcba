"""Console of a run, which survives a closed output pipe."""

import contextlib
import os
import sys

from rich.console import Console


class RunConsole(Console):
  """Console that does not end the run when its output pipe closes.

  Rich ends a process whose standard output loses its reader, as with `| head`
  or a killed `tee`. A run continues, because its log is in the workdir.
  """

  def on_broken_pipe(self) -> None:
    """Stop printing, and report that on standard error."""
    self.quiet = True
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    with contextlib.suppress(OSError):  # standard error may be closed too
      print(
        "podscale-train: nothing reads the standard output any more; the run "
        "continues and logs to its workdir",
        file=sys.stderr,
        flush=True,
      )
