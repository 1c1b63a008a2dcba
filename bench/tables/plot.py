"""Figures of benchmark rows, one kind for each benchmark."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from ...train.errors import UsageError
from ..chips import CHIPS, Chip
from .compare import Rows

_LANES = 8 * 128  # values in a vector register
_ROW_INCHES = 0.17  # height of a bar
_DPI = 110
# Okabe and Ito's palette, which colour-blind readers can tell apart.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
_SIDES = {"XLA": ("xla", "#999999", "o"), "podscale": ("ours", "#0072B2", "^")}


def draw(benchmark: str, rows: Rows) -> Figure:
  """Draw the rows of a benchmark.

  Args:
    benchmark: Name of the benchmark, such as "kernels".
    rows: Rows that `--json` prints.

  Raises:
    UsageError: The rows lack the figures that the drawing needs.
  """
  figure = Figure(dpi=_DPI, layout="constrained")
  FigureCanvasAgg(figure)
  try:
    _DRAWINGS[benchmark](figure, rows)
  except KeyError as error:
    raise UsageError(
      f"--plot: the rows have no {error}; are they of `bench {benchmark}`?"
    ) from error
  return figure


def write_figure(path: Path, figure: Figure) -> None:
  """Write a figure, in the format of the path's suffix.

  Raises:
    UsageError: The file cannot be written, or the format is unknown.
  """
  try:
    figure.savefig(path)
  except (OSError, ValueError) as error:
    raise UsageError(f"--plot {path}: {error}") from error


def vector_work(row: dict[str, Any], side: str) -> tuple[float, float]:
  """Return the vector work of a layer's program on one chip.

  Args:
    row: Row of `bench kernels --chip`.
    side: "xla" or "ours".

  Returns:
    Vector operations, one for each value of a register, divided by the HBM
    bytes; and the same in 1e9 a second.
  """
  chip, programs = CHIPS[row["chip"]], row["programs"][side]
  operations = sum(
    routine["vector_slots"]
    * (routine["us"] - routine["stall_us"])
    * _operations_per_us(chip)
    for routine in programs
  )
  bytes_ = sum(routine["hbm_bytes"] for routine in programs)
  return operations / bytes_, operations / row[f"{side}_us"] / 1e3


def _operations_per_us(chip: Chip) -> float:
  return chip.vector_slots * chip.mhz * _LANES


def _kernels(figure: Figure, rows: Rows) -> None:
  """Draw the ratios, and for estimates a roofline of each chip."""
  chips = list(dict.fromkeys(row.get("chip", "") for row in rows))
  layers = list(dict.fromkeys(row["layer"] for row in rows))
  estimated = chips != [""]
  bar_inches = 1.6 + _ROW_INCHES * len(layers) * (len(chips) + 0.6)
  height = max(bar_inches, 2.7 * len(chips)) if estimated else bar_inches
  figure.set_size_inches(11 if estimated else 7, height)
  if estimated:
    left, right = figure.subfigures(
      ncols=2, width_ratios=(6, 5), squeeze=False
    )[0]
    axes = left.subplots()
    rooflines = right.subplots(nrows=len(chips), squeeze=False)
    for chip, axis in zip(chips, rooflines[:, 0], strict=True):
      _roofline(axis, chip, [row for row in rows if row["chip"] == chip])
    images = rows[0]["images"]
    figure.suptitle(
      f"Depthwise layers, forward and backward, {images} images, bfloat16 "
      "(ESTIMATES)"
    )
  else:
    axes = figure.subplots()
    figure.suptitle("Depthwise layers, forward and backward (measured)")
  ratios = {
    chip: [
      next(
        row["ratio"]
        for row in rows
        if (row["layer"], row.get("chip", "")) == (layer, chip)
      )
      for layer in layers
    ]
    for chip in chips
  }
  rival = "XLA's fusions" if estimated else "plain JAX"
  _grouped_bars(axes, layers, ratios, f"speed / speed of {rival}", "%.2f")
  axes.axvline(1, color="black", linewidth=1)
  axes.set_ylabel("layer: input, filter, stride")


def _roofline(axes: Axes, name: str, rows: Rows) -> None:
  """Draw the layers of both sides under the two roofs of a chip."""
  chip = CHIPS[name]
  peak = _operations_per_us(chip) / 1e3
  points = {
    side: [vector_work(row, key) for row in rows]
    for side, (key, _, _) in _SIDES.items()
  }
  intensities = [x for values in points.values() for x, _ in values]
  ridge = peak / chip.hbm_gb_per_s
  ends = min(*intensities, ridge) / 2, max(*intensities, ridge) * 1.5
  axes.plot(
    [ends[0], ridge, ends[1]],
    [ends[0] * chip.hbm_gb_per_s, peak, peak],
    color="black",
    linewidth=1,
    label="roof",
  )
  for side, (_, colour, marker) in _SIDES.items():
    intensity, throughput = zip(*points[side], strict=True)
    axes.scatter(
      intensity,
      throughput,
      color=colour,
      marker=marker,
      s=22,
      label=side,
    )
  lowest = min(y for values in points.values() for _, y in values)
  axes.set_xscale("log")
  axes.set_yscale("log")
  axes.set_xlim(*ends)
  axes.set_ylim(lowest / 1.5, peak * 1.25)
  for axis in (axes.xaxis, axes.yaxis):
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axis.set_minor_formatter(NullFormatter())
  axes.set_title(
    f"{name}: {chip.hbm_gb_per_s:,.0f} GB/s, {peak:,.0f} Gop/s",
    fontsize="medium",
  )
  axes.set_xlabel("vector operations per HBM byte")
  axes.set_ylabel("1e9 operations / s")
  axes.legend(loc="lower right", fontsize="small")


def _lars(figure: Figure, rows: Rows) -> None:
  """Draw the speed of each implementation of the update."""
  names = [row["update"] for row in rows]
  values = {"": [row["times faster"] for row in rows]}
  _single(figure, names, values, "speed / speed of optax.lars (log)", "%.3g")
  axes = figure.axes[0]
  axes.set_xscale("log")
  axes.set_ylabel("update")
  kind = "ESTIMATES" if "us" in rows[0] else "measured"
  figure.suptitle(f"LARS update of a whole network ({kind})")


def _collectives(figure: Figure, rows: Rows) -> None:
  """Draw the time of each part, or the bytes of a compiled one."""
  rows = [row for row in rows if "part" in row]
  names = [row["part"] for row in rows]
  if "median_s" in rows[0]:
    values = [1e3 * row["median_s"] for row in rows]
    label, kind = "median time, ms (log)", "measured"
  else:
    values = [row["megabytes"] for row in rows]
    label, kind = "result of all collectives, MB a device (log)", "compiled"
  _single(figure, names, {"": values}, label, "%.3g")
  figure.axes[0].set_xscale("log")
  figure.axes[0].set_ylabel("part: implementation")
  figure.suptitle(f"Collectives of a training step ({kind})")


def _step(figure: Figure, rows: Rows) -> None:
  """Draw measured rates, or the kinds of operations in an estimated step."""
  if "step" in rows[0]:
    names = [row["step"] for row in rows]
    values = {"": [row["images_per_s"] for row in rows]}
    _single(figure, names, values, "images / s", "%.4g")
    figure.suptitle("Training step on one device (measured)")
    return
  figure.set_size_inches(8, 1.6 + 0.5 * len(rows))
  axes = figure.subplots()
  names = [row["implementation"] for row in rows]
  left = [0.0] * len(rows)
  for i, kind in enumerate(rows[0]["kinds"]):
    widths = [row["kinds"][kind] / 1e3 for row in rows]
    colour = _COLOURS[i % len(_COLOURS)]
    axes.barh(names, widths, left=left, label=kind, color=colour)
    left = [a + b for a, b in zip(left, widths, strict=True)]
  for i, end in enumerate(left):
    axes.annotate(f" {end:.1f}", (end, i), va="center")
  axes.invert_yaxis()
  axes.margins(x=0.1)
  axes.set_xlabel("ms a step, by kind of operation")
  axes.set_ylabel("implementation")
  axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
  figure.suptitle("Training step on a core of a slice (ESTIMATES)")


def _scale(figure: Figure, rows: Rows) -> None:
  """Draw throughput by the number of devices, beside the published one."""
  figure.set_size_inches(7, 4.5)
  axes = figure.subplots()
  for i, chip in enumerate(dict.fromkeys(row["chip"] for row in rows)):
    own = [row for row in rows if row["chip"] == chip]
    axes.plot(
      [row["cores"] for row in own],
      [row["images_per_ms"] for row in own],
      marker="o",
      color=_COLOURS[i % len(_COLOURS)],
      label=f"{chip}, estimate",
    )
    known = [row for row in own if row["published_images_per_ms"]]
    if known:
      axes.plot(
        [row["cores"] for row in known],
        [row["published_images_per_ms"] for row in known],
        marker="x",
        linestyle="none",
        color="black",
        label=f"{chip}, published",
      )
  axes.set_xscale("log", base=2)
  axes.set_yscale("log")
  axes.set_xlabel("devices")
  axes.set_ylabel("images / ms")
  axes.legend()
  figure.suptitle("Throughput of slices (ESTIMATES)")


def _memory(figure: Figure, rows: Rows) -> None:
  """Draw the bytes that both networks keep of an image."""
  names = [row["model"] for row in rows]
  values = {
    "plain JAX": [row["plain_bytes"] / 1e6 for row in rows],
    "podscale": [row["bytes"] / 1e6 for row in rows],
  }
  _single(figure, names, values, "MB kept of an image (log)", "%.4g")
  figure.axes[0].set_xscale("log")
  figure.axes[0].set_ylabel("model")
  figure.suptitle("Activations kept for the backward pass (bfloat16)")


def _calibrate(figure: Figure, rows: Rows) -> None:
  """Draw estimates against published times; fitted pairs are hollow."""
  figure.set_size_inches(7, 6)
  axes = figure.subplots()
  rows = [row for row in rows if row["ratio"]]
  for i, chip in enumerate(dict.fromkeys(row["chip"] for row in rows)):
    colour = _COLOURS[i % len(_COLOURS)]
    own = [row for row in rows if row["chip"] == chip]
    axes.scatter(
      [row["published_us"] for row in own],
      [row["estimate_us"] for row in own],
      facecolors=["none" if row["fits"] else colour for row in own],
      edgecolors=colour,
      label=chip,
    )
  times = [row["published_us"] for row in rows]
  ends = [min(times) / 2, max(times) * 2]
  axes.plot(ends, ends, color="black", linewidth=1)
  axes.set_xscale("log")
  axes.set_yscale("log")
  axes.set_xlabel("published, us")
  axes.set_ylabel("estimate, us")
  axes.legend(title="hollow: fitted")
  figure.suptitle("Published hardware times and ESTIMATES")


def _input(figure: Figure, rows: Rows) -> None:
  """Draw the rate of each stage of the input pipeline."""
  names = [f"{row['stage']}, {row['threads']} threads" for row in rows]
  values = {"": [row["images_per_s"] for row in rows]}
  _single(figure, names, values, "images / s", "%.4g")
  figure.axes[0].set_ylabel("stage")
  figure.suptitle("Input pipeline of one host (measured)")


def _single(
  figure: Figure,
  names: Sequence[str],
  values: dict[str, list[float]],
  label: str,
  number: str,
) -> None:
  """Draw one panel of grouped bars."""
  bars = len(names) * (len(values) + 0.6)
  figure.set_size_inches(8, 1.6 + 1.4 * _ROW_INCHES * bars)
  _grouped_bars(figure.subplots(), names, values, label, number)


def _grouped_bars(
  axes: Axes,
  names: Sequence[str],
  values: dict[str, list[float]],
  label: str,
  number: str,
) -> None:
  """Draw a group of horizontal bars for each name, a bar for each series."""
  thickness = 1 / (len(values) + 0.6)
  for i, (series, lengths) in enumerate(values.items()):
    offset = (i - (len(values) - 1) / 2) * thickness
    bars = axes.barh(
      [place + offset for place in range(len(names))],
      lengths,
      height=thickness,
      label=series,
      color=_COLOURS[i % len(_COLOURS)],
    )
    labels = axes.bar_label(bars, fmt=number, padding=2, fontsize=7)
    for text in labels:  # readable across a line
      text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.4})
  axes.set_yticks(range(len(names)), names)
  axes.invert_yaxis()
  axes.set_xlabel(label)
  axes.margins(x=0.12, y=0.02)
  if any(values):
    axes.legend(fontsize="small", loc="lower right")


_DRAWINGS: dict[str, Callable[[Figure, Rows], None]] = {
  "kernels": _kernels,
  "collectives": _collectives,
  "lars": _lars,
  "step": _step,
  "scale": _scale,
  "memory": _memory,
  "calibrate": _calibrate,
  "input": _input,
}
