"""Comparison of two runs of a benchmark."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from ...train.errors import UsageError

Rows = list[dict[str, Any]]

_ESTIMATED = 0.02  # estimates are deterministic for one version of libtpu
_MEASURED = 0.1  # times depend on the machine's load
# Columns that identify a row, in the order in which a name lists them.
_NAMES = (
  *("layer", "update", "part", "implementation", "step", "chip", "cores"),
  *("group", "model"),
)
# Figures that depend on the machine's load, or on rounding.
_NOISE = ("compile_s", "lower_s", "min_s", "max_s", "difference")
# Figures of which more is better, and of which less is. Others, such as the
# rival's times, can change but not be lost.
_MORE = (
  *("ratio", "forward_ratio", "times faster", "of_bound", "of_published"),
  *("images_per_s", "images_per_ms", "images_per_s_per_core", "of_decode"),
)
_LESS = (
  *("us", "ours_us", "ours_forward_us", "step_us", "core_us", "collective_us"),
  *("median_s", "podscale_s", "kernels", "collectives", "failures", "failed"),
  *("megabytes", "of the least", "bytes_ratio", "hbm_bytes", "bytes", "of_hbm"),
  *("peak_bytes", "all_reduce_percent"),
)


class Change(NamedTuple):
  """A figure that differs between two runs.

  Attributes:
    row: Name of the row.
    figure: Name of the figure.
    before: Value in the earlier run.
    after: Value in the later run.
    is_loss: True if the later value is the worse one.
  """

  row: str
  figure: str
  before: float
  after: float
  is_loss: bool

  @property
  def ratio(self) -> float:
    """Later value divided by the earlier one."""
    return self.after / self.before if self.before else math.inf

  def __str__(self) -> str:
    text = (
      f"{self.row}: {self.figure} {self.before:.5g} -> {self.after:.5g} "
      f"({self.ratio:.2f})"
    )
    return text + ", loss" if self.is_loss else text


def changes(before: Rows, after: Rows) -> list[Change]:
  """List the figures that differ between two runs.

  Estimates count from 2 % on, times from 10 %. New rows and figures are no
  change. Lists of failures are compared by their lengths.

  Args:
    before: Rows of a benchmark.
    after: Rows of a later run.

  >>> print(*changes([{"layer": "a", "us": 10.0}], [{"layer": "a", "us": 12}]))
  a: us 10 -> 12 (1.20), loss
  """
  earlier = {_name(row): row for row in before}
  found = []
  for row in after:
    old = earlier.get(_name(row), {})
    threshold = _ESTIMATED if "compiler" in row else _MEASURED
    for figure in row.keys() & old.keys() - set(_NOISE):
      change = _change(_name(row), figure, old, row, threshold)
      found += [change] if change else []
  order = {figure: i for row in after for i, figure in enumerate(row)}
  names = {_name(row): i for i, row in enumerate(after)}
  return sorted(found, key=lambda c: (names[c.row], order[c.figure]))


def missing_rows(before: Rows, after: Rows) -> list[str]:
  """Name the rows of the earlier run that the later one does not have.

  >>> missing_rows([{"layer": "a"}, {"layer": "b"}], [{"layer": "a"}])
  ['b']
  """
  names = set(map(_name, after))
  return [name for name in map(_name, before) if name not in names]


def compilers(rows: Rows) -> list[str]:
  """List the compilers that made the rows' estimates.

  >>> compilers([{"compiler": {"libtpu": "0.0.52"}, "us": 1.0}, {"us": 2.0}])
  ['libtpu 0.0.52']
  """
  return sorted(
    {" ".join(*row["compiler"].items()) for row in rows if "compiler" in row}
  )


def all_rows(tables: Any) -> Rows:
  """Collect the rows of one table, or of several by their titles.

  Raises:
    ValueError: The argument is neither.
  """
  found = tables.values() if isinstance(tables, dict) else [tables]
  if not all(isinstance(rows, list) for rows in found):
    raise ValueError("it holds no tables")
  rows = [row for rows in found for row in rows]
  if not all(isinstance(row, dict) for row in rows):
    raise ValueError("its tables hold no rows")
  return rows


def read_run(path: Path, flag: str = "--compare") -> Any:
  """Read a file that `--json` wrote.

  Args:
    path: File.
    flag: Flag that named the file, for errors.

  Returns:
    The rows of one table, or tables by their titles.

  Raises:
    UsageError: The file is missing, or holds something else.
  """
  try:
    run = json.loads(path.read_text())
    all_rows(run)
    return run
  except OSError as error:
    raise UsageError(f"{flag} {path}: {error.strerror}") from error
  except ValueError as error:
    raise UsageError(
      f"{flag} {path}: not the output of a benchmark with --json ({error})"
    ) from error


def _name(row: dict[str, Any]) -> str:
  return " ".join(str(row[name]) for name in _NAMES if name in row)


def _number(figure: str, row: dict[str, Any]) -> float | None:
  """Return a row's figure as a number, or None if it is something else."""
  value = row[figure]
  if figure in ("failures", "failed") and isinstance(value, list):
    return len(value)
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  return value if is_number else None


def _change(
  name: str,
  figure: str,
  old: dict[str, Any],
  new: dict[str, Any],
  threshold: float,
) -> Change | None:
  before, after = _number(figure, old), _number(figure, new)
  if before is None or after is None:
    return None
  if abs(after - before) <= threshold * abs(before):
    return None
  is_loss = figure in (_LESS if after > before else _MORE)
  return Change(name, figure, before, after, is_loss)
