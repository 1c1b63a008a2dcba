"""What a run ends with: curves.png and a table in the terminal."""

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
from .log import METRICS, read_metrics, write_atomically

CURVES = "curves.png"
_TRAIN = {"color": "#4C72B0", "linewidth": 1.5, "label": "train"}
_TEST = {"color": "#DD8452", "linewidth": 2, "marker": "o", "markersize": 4}

Records = Sequence[dict[str, Any]]


def report(workdir: str | Path, console: Console) -> None:
  """Draw the curves and print the summary, as far as they can be.

  A run that has come to its end does not fail here: what cannot be drawn or
  printed is named in a line.
  """
  for what, work in (
    (f"{CURVES} is not drawn", lambda: write_curves(workdir)),
    ("there is no summary", lambda: print_summary(workdir, console)),
  ):
    try:
      work()
    except Exception as error:
      text = f"{what} ({type(error).__name__}: {one_line(error)})"
      console.print(text, markup=False, highlight=False, soft_wrap=True)


def write_curves(workdir: str | Path) -> Path:
  """Draw WORKDIR/curves.png from what metrics.jsonl has, even if it is little.

  Three panels over epochs: loss (log scale), learning rate, top-1 accuracy.

  Returns:
    The path of the picture (1,800 x 630 pixels).

  Raises:
    UsageError: If there is no readable metrics.jsonl, or the picture cannot be
      written; one that was there is then left as it was.
  """
  records = read_metrics(Path(workdir) / METRICS)
  train, evals = _of_kind(records, "train"), _of_kind(records, "eval")
  figure = Figure(figsize=(12, 4.2), dpi=150, layout="constrained")
  FigureCanvasAgg(figure)
  figure.suptitle(_title(records), fontsize=15)
  loss, learning_rate, accuracy = figure.subplots(1, 3)

  _curve(loss, train, "loss", **_TRAIN)
  _curve(loss, evals, "loss", **_TEST, label=_split(evals))
  # The average is far off at first, and would press all the rest to the floor.
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
  """Print what the run came to as a table, from metrics.jsonl.

  Raises:
    UsageError: If there is no readable metrics.jsonl.
  """
  workdir = Path(workdir)
  records = read_metrics(workdir / METRICS)
  runs = _of_kind(records, "run")
  train, evals = _of_kind(records, "train"), _of_kind(records, "eval")
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
    table.add_row("of it", shares)
  table.add_row("files", "\n".join(_files(workdir)))
  console.print(table)


def _of_kind(records: Records, kind: str) -> list[dict[str, Any]]:
  return [record for record in records if record["kind"] == kind]


def _split(evals: Records) -> str:
  return evals[-1]["split"] if evals else "test"


def _title(records: Records) -> str:
  runs, evals = _of_kind(records, "run"), _of_kind(records, "eval")
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
  """Time from the start of each process to its last record, added up."""
  total = 0.0
  for before, after in zip(records, records[1:], strict=False):
    if after["kind"] != "run":
      total += after["time"] - before["time"]
  return total


def _shares(records: Records) -> str:
  """What the time of all processes went into, largest first."""
  total: dict[str, float] = {}
  for before, after in itertools.zip_longest(records, records[1:]):
    # The last account of each process holds the others.
    if before["kind"] == "times" and (after is None or after["kind"] == "run"):
      for what, seconds in before["seconds"].items():
        total[what] = total.get(what, 0.0) + seconds
    if before["kind"] == "run" and before.get("lost_seconds"):
      lost = total.get("lost work", 0.0) + before["lost_seconds"]
      total["lost work"] = lost
  whole = sum(total.values())
  named = sorted(total.items(), key=lambda item: -item[1])
  return ", ".join(f"{what} {s / whole:.1%}" for what, s in named if whole)


def _files(workdir: Path) -> list[str]:
  names = (CURVES, METRICS, "tensorboard", "checkpoints")
  return [str(workdir / name) for name in names if (workdir / name).exists()]


def _curve(axes: Axes, records: Records, name: str, **style: Any) -> None:
  points = [
    (record["epoch"], record[name])
    for record in records
    if record.get(name) is not None  # null: it was not a finite number
  ]
  if len(points) == 1:
    style["marker"] = "o"  # a line through one point does not show
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
