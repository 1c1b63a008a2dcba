"""What changed between two runs of a benchmark."""

import json
from pathlib import Path
from typing import Any

from ...train.errors import UsageError

Rows = list[dict[str, Any]]

_MOST = 0.1
# What a row is of, as far as it has them.
_NAMES = (
  *("layer", "update", "part", "implementation", "step", "chip", "cores"),
  *("group", "model"),
)
# Depends on how busy the machine is.
_NOISE = ("compile_s", "lower_s", "difference")


def changes(before: Rows, after: Rows) -> Rows:
  """The figures that differ by more than a tenth.

  Estimates are deterministic for one version of the compiler, times are not.

  Args:
    before: Rows of a benchmark.
    after: Rows of the same one, later.

  Returns:
    A row for each: `row`, `figure`, `before`, `after` and their `ratio`.

  >>> changes([{"layer": "a", "us": 10.0}], [{"layer": "a", "us": 12.0}])
  [{'row': 'a', 'figure': 'us', 'before': 10.0, 'after': 12.0, 'ratio': 1.2}]
  """
  earlier = {_name(row): row for row in before}
  found = []
  for row in after:
    old = earlier.get(_name(row), {})
    for figure, value in row.items():
      if figure not in _NOISE and _differ(old.get(figure), value):
        found.append(
          {
            "row": _name(row),
            "figure": figure,
            "before": old[figure],
            "after": value,
            "ratio": value / old[figure],
          }
        )
  return found


def compilers(rows: Rows) -> list[str]:
  """Those that made the rows' estimates.

  >>> compilers([{"compiler": {"libtpu": "0.0.52"}, "us": 1.0}, {"us": 2.0}])
  ['libtpu 0.0.52']
  """
  return sorted(
    {" ".join(*row["compiler"].items()) for row in rows if "compiler" in row}
  )


def all_rows(tables: Any) -> Rows:
  """The rows of one table, or of several by their titles.

  Raises:
    ValueError: it is neither.
  """
  found = tables.values() if isinstance(tables, dict) else [tables]
  if not all(isinstance(rows, list) for rows in found):
    raise ValueError("no tables")
  rows = [row for rows in found for row in rows]
  if not all(isinstance(row, dict) for row in rows):
    raise ValueError("no rows")
  return rows


def read_run(path: Path) -> Any:
  """What `--json` wrote: the rows of one table, or tables by their titles.

  Raises:
    UsageError: there is no such file, or it holds something else.
  """
  try:
    run = json.loads(path.read_text())
    all_rows(run)
    return run
  except OSError as error:
    raise UsageError(f"--compare {path}: {error.strerror}") from error
  except ValueError as error:
    raise UsageError(
      f"--compare {path}: not what a benchmark prints with --json ({error})"
    ) from error


def _name(row: dict[str, Any]) -> str:
  return " ".join(str(row[name]) for name in _NAMES if name in row)


def _differ(before: Any, after: Any) -> bool:
  numbers = all(
    isinstance(x, int | float) and not isinstance(x, bool) and x
    for x in (before, after)
  )
  return numbers and abs(after / before - 1) > _MOST
