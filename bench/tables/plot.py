"""A picture of a benchmark: the roofline of its layers, and the ratios."""

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ...train.errors import UsageError

_INCHES_A_ROW = 0.25
# What the rows of each benchmark name themselves by.
_NAMES = ("layer", "update", "part", "implementation", "step", "cores")


def write_plot(path: Path, title: str, rows: list[dict[str, Any]]) -> None:
  """Draws rows of a benchmark, as `--json` prints them.

  One panel has a roofline: what of the bound each row achieves, the roof being
  1. The other has how many times as fast as plain JAX it is; or, where the rows
  are ways to do one thing, as the first. A benchmark may have one of them only.

  Args:
    path: File to write, by its suffix in one of matplotlib's formats.
    title: Above it.
    rows: Of one table.

  Raises:
    UsageError: the rows have neither bounds nor ratios, or the file cannot be
      written.
  """
  panels = [
    (values, label)
    for values, label in (
      ([row.get("of_bound") for row in rows], "achieved / bound"),
      (_ratios(rows), "times plain JAX's speed"),
    )
    if None not in values
  ]
  if not panels:
    raise UsageError("--plot: this benchmark has neither bounds nor ratios")
  names = [_name(row) for row in rows]
  figure = Figure(
    figsize=(4 + 4 * len(panels), 1.5 + _INCHES_A_ROW * len(rows)),
    dpi=120,
    layout="constrained",
  )
  FigureCanvasAgg(figure)
  axes = figure.subplots(ncols=len(panels), sharey=True, squeeze=False)
  for axis, (values, label) in zip(axes[0], panels, strict=True):
    bars = axis.barh(names, values)
    axis.bar_label(bars, fmt="%.2f", padding=2)
    axis.axvline(1, color="black", linewidth=1)
    axis.set_xlabel(label)
    axis.margins(x=0.12)
  axes[0][0].invert_yaxis()
  figure.suptitle(title, fontsize="medium")
  try:
    figure.savefig(path)
  except (OSError, ValueError) as error:
    raise UsageError(f"--plot {path}: {error}") from error


def _name(row: dict[str, Any]) -> str:
  return " ".join(str(row[name]) for name in _NAMES if name in row)


def _ratios(rows: list[dict[str, Any]]) -> list[Any]:
  for key in ("ratio", "times faster", "of_published"):
    if key in rows[0]:
      return [row[key] for row in rows]
  for key in ("step_us", "median_s"):
    if key in rows[0]:
      return [rows[0][key] / row[key] for row in rows]
  return [None]
