"""Tables of benchmark rows for the terminal."""

import statistics
from typing import Any

from rich.console import Console
from rich.table import Table

_FILE_WIDTH = 160  # characters, where the output is no terminal


def print_table(title: str, rows: list[dict[str, Any]]) -> None:
  """Print rows that have the same keys.

  Lists and nested tables are left out; `--json` has them. Below the table stand
  the ratio of `images_per_s` of two rows, and the geometric mean of each column
  of ratios.

  Args:
    title: Title above the table.
    rows: Rows, at least one.
  """
  columns = [
    key for key, value in rows[0].items() if type(value) not in (list, dict)
  ]
  table = Table(title=title)
  for column in columns:
    table.add_column(
      column, justify="left" if _is_text(rows, column) else "right"
    )
  for row in rows:
    table.add_row(*(_cell(row[column]) for column in columns))
  console = Console()
  if not console.is_terminal:
    console.width = _FILE_WIDTH
  console.print(table)
  rates = [row["images_per_s"] for row in rows if "images_per_s" in row]
  if len(rates) == 2:
    console.print(f"ratio of images per second: {rates[1] / rates[0]:.2f}")
  for column in columns:
    if column.endswith("ratio"):
      ratios = [row[column] for row in rows if row[column] is not None]
      if ratios:
        mean = statistics.geometric_mean(ratios)
        console.print(f"{column}, geometric mean: {mean:.3f}")


def _is_text(rows: list[dict[str, Any]], column: str) -> bool:
  return isinstance(rows[0][column], str)


def _cell(value: Any) -> str:
  if value is None:
    return ""
  return value if isinstance(value, str) else f"{value:.4g}"
