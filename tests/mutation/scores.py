"""Print the share of killed mutants of each module: part of `make mutation`.

A timeout counts as a kill. A mutant without a test counts as a survivor.
"""

import collections
import json
import sys
from pathlib import Path

from mutmut.stats import status_by_exit_code

MUTANTS = Path("mutants/src/podscale")
GOAL = 0.85


def main() -> int:
  """Print one line per module; return 1 if a module is below the goal."""
  below = 0
  for path in sorted(MUTANTS.rglob("*.py.meta")):
    exit_codes = json.loads(path.read_text())["exit_code_by_key"]
    statuses = {name: status_by_exit_code[x] for name, x in exit_codes.items()}
    checked = [s for s in statuses.values() if s != "not checked"]
    if not checked:
      continue
    counts = collections.Counter(checked)
    score = (counts["killed"] + counts["timeout"]) / len(checked)
    below += score < GOAL
    module = path.relative_to(MUTANTS).with_suffix("")
    print(
      f"{module}: {score:.1%} of {len(checked)} mutants killed, "
      f"{len(statuses) - len(checked)} not checked"
    )
    for name, status in statuses.items():
      if status not in ("killed", "timeout", "not checked"):
        print(f"  {status}: {name}")
  return int(below > 0)


if __name__ == "__main__":
  sys.exit(main())
