"""Report at the end of a run: curves.png and a table in the terminal."""

import io
import itertools
import statistics
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from rich import box
from rich.console import Console
from rich.table import Table

from ..errors import one_line
from .files import write_atomically
from .metrics_file import METRICS, read_metrics

CURVES = "curves.png"
_TRAIN = {"color": "#4C72B0", "linewidth": 1.5, "label": "train"}
_TEST = {"color": "#DD8452", "linewidth": 2, "marker": "o", "markersize": 4}

Records = Sequence[dict[str, Any]]


def report(workdir: str | Path, console: Console) -> None:
  """Draw the curves and print the summary.

  An error here does not fail a finished run; it becomes a line of text.

  Args:
    workdir: Folder of the run.
    console: Console for the summary.
  """
  for problem, work in (
    (f"cannot draw {CURVES}", lambda: write_curves(workdir)),
    ("cannot print the summary", lambda: print_summary(workdir, console)),
  ):
    try:
      work()
    except Exception as error:
      text = f"{problem} ({type(error).__name__}: {one_line(error)})"
      console.print(text, markup=False, highlight=False, soft_wrap=True)


def write_curves(workdir: str | Path) -> Path:
  """Draw WORKDIR/curves.png from metrics.jsonl.

  Three panels show loss (log scale), learning rate and top-1 accuracy over
  epochs. A panel without records says so.

  Args:
    workdir: Folder of the run.

  Returns:
    Path of the picture, 1,800 x 630 pixels.

  Raises:
    UsageError: The metrics.jsonl cannot be read, or the picture cannot be
      written; an older picture then stays.
  """
  records = read_metrics(Path(workdir) / METRICS)
  train, evals = _select(records, "train"), _select(records, "eval")
  figure = Figure(figsize=(12, 4.2), dpi=150, layout="constrained")
  FigureCanvasAgg(figure)
  figure.suptitle(_title(records), fontsize=15)
  loss, learning_rate, accuracy = figure.subplots(1, 3)

  _curve(loss, train, "loss", **_TRAIN)
  _curve(loss, evals, "loss", **_TEST, label=_split(evals))
  # On a linear scale the large first losses of the average hide the rest.
  loss.set_yscale("log")
  _finish(loss, "loss")
  if train and evals:
    loss.legend(frameon=False, fontsize=12)

  _curve(learning_rate, train, "learning_rate", **_TRAIN)
  _finish(learning_rate, "learning rate")

  _curve(accuracy, evals, "top1", **_TEST)
  accuracy.yaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=" %"))
  _finish(accuracy, f"{_split(evals)} top-1")

  path = Path(workdir) / CURVES
  picture = io.BytesIO()
  figure.savefig(picture, format="png")
  write_atomically(path, picture.getvalue())
  return path


def print_summary(workdir: str | Path, console: Console) -> None:
  """Print a table of the run's results, from metrics.jsonl.

  Args:
    workdir: Folder of the run.
    console: Console to print to.

  Raises:
    UsageError: The metrics.jsonl cannot be read.
  """
  workdir = Path(workdir)
  records = read_metrics(workdir / METRICS)
  runs = _select(records, "run")
  train, evals = _select(records, "train"), _select(records, "eval")
  table = Table(box=box.SIMPLE_HEAD, show_header=False, title=_title(records))
  table.add_column(style="bold", no_wrap=True)
  table.add_column(overflow="fold")

  if runs:
    table.add_row("preset", runs[-1]["preset"])
    table.add_row("devices", _devices(runs[-1]))
  last = max([*train, *evals], key=lambda record: record["step"], default={})
  table.add_row("steps", f"{last.get('step', 0):,}")
  table.add_row("epochs", f"{last.get('epoch', 0):.1f}")
  if train:
    median = statistics.median(record["images_per_s"] for record in train)
    table.add_row("images/s", f"{median:,.0f} (median)")
  if evals:
    best = max(evals, key=lambda record: record["top1"])
    table.add_row(f"{_split(evals)} top-1", _accuracy(evals[-1]))
    table.add_row("best", f"{_accuracy(best)} after epoch {best['epoch']:.1f}")
  else:
    table.add_row("top-1", "not evaluated")
  table.add_row("time", str(timedelta(seconds=round(_seconds(records)))))
  if shares := _shares(records):
    table.add_row("spent on", shares)
  table.add_row("files", "\n".join(_files(workdir)))
  console.print(table)


def _select(records: Records, kind: str) -> list[dict[str, Any]]:
  return [record for record in records if record["kind"] == kind]


def _split(evals: Records) -> str:
  return evals[-1]["split"] if evals else "test"


def _title(records: Records) -> str:
  runs, evals = _select(records, "run"), _select(records, "eval")
  preset = runs[0]["preset"] if runs else "a run"
  if not evals:
    return f"podscale {preset}"
  last = evals[-1]
  return (
    f"podscale {preset}: {last['top1']:.2%} top-1 after "
    f"{last['epoch']:.4g} epochs"
  )


def _devices(run: dict[str, Any]) -> str:
  devices = f"{run['device_count']} x {run['device_kind']}"
  processes = run["process_count"]
  return devices if processes == 1 else f"{devices} in {processes} processes"


def _accuracy(record: dict[str, Any]) -> str:
  return (
    f"{record['top1']:.2%} "
    f"({record['correct']:,} of {record['examples']:,} images)"
  )


def _seconds(records: Records) -> float:
  """Sum the times from each process's start to its last record."""
  total = 0.0
  for before, after in zip(records, records[1:], strict=False):
    if after["kind"] != "run":
      total += after["time"] - before["time"]
  return total


def _shares(records: Records) -> str:
  """List the shares of the activities in all processes' time, largest first."""
  total: dict[str, float] = {}
  for before, after in itertools.zip_longest(records, records[1:]):
    # The last "times" record of a process includes the earlier ones.
    if before["kind"] == "times" and (after is None or after["kind"] == "run"):
      for activity, seconds in before["seconds"].items():
        total[activity] = total.get(activity, 0.0) + seconds
    if before["kind"] == "run" and before.get("lost_seconds"):
      lost = total.get("lost work", 0.0) + before["lost_seconds"]
      total["lost work"] = lost
  whole = sum(total.values())
  named = sorted(total.items(), key=lambda item: -item[1])
  return ", ".join(f"{name} {s / whole:.1%}" for name, s in named if whole)


def _files(workdir: Path) -> list[str]:
  names = (CURVES, METRICS, "tensorboard", "checkpoints")
  return [str(workdir / name) for name in names if (workdir / name).exists()]


def _curve(axes: Axes, records: Records, name: str, **style: Any) -> None:
  points = [
    (record["epoch"], record[name])
    for record in records
    if record.get(name) is not None  # null stands for not finite
  ]
  if len(points) == 1:
    style["marker"] = "o"  # a line through one point is invisible
  if points:
    axes.plot(*zip(*points, strict=True), **style)


def _finish(axes: Axes, title: str) -> None:
  axes.set_title(title, fontsize=13)
  axes.set_xlabel("epoch", fontsize=12)
  axes.tick_params(labelsize=11)
  axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
  axes.set_xlim(left=0)
  axes.grid(alpha=0.3)
  axes.spines[["top", "right"]].set_visible(False)
  if not axes.lines:
    axes.text(
      0.5, 0.5, "nothing logged", transform=axes.transAxes, fontsize=12,
      ha="center", va="center", color="gray",
    )  # fmt: skip
