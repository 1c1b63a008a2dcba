import os
import subprocess
import sys

PROGRAM = """
import sys
from podscale.train.processes.console import RunConsole

console = RunConsole()
for _ in range(3):
  console.print("a step")
  sys.stdout.flush()
print("at the end", file=sys.stderr)
"""


def test_a_run_goes_on_when_nothing_reads_its_lines():
  reader, writer = os.pipe()
  os.close(reader)
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM],
    stdout=writer,
    stderr=subprocess.PIPE,
    text=True,
  )
  os.close(writer)
  closed, end = done.stderr.splitlines()
  assert closed.startswith("podscale-train: nothing reads the standard output")
  assert (done.returncode, end) == (0, "at the end")
