"""Figures of benchmarks, read back from matplotlib."""

import json

import pytest

from podscale.bench.__main__ import main
from podscale.bench.chips import CHIPS
from podscale.bench.tables.plot import draw, write_figure
from podscale.train.errors import UsageError


def bars(axes):
  """Return the length of each bar by its group and series."""
  names = [label.get_text() for label in axes.get_yticklabels()]
  return {
    (names[round(bar.get_y() + bar.get_height() / 2)], series.get_label()): (
      bar.get_width()
    )
    for series in axes.containers
    for bar in series
  }


def layer(name, chip, ratio):
  """A row of `bench kernels --chip`: 2 us of bundles, half of their slots."""
  routine = {"us": 3.0, "stall_us": 1.0, "vector_slots": 0.5, "hbm_bytes": 4096}
  return {
    "layer": name,
    "chip": chip,
    "images": 64,
    "ratio": ratio,
    "ours_us": 6.0,
    "xla_us": 6.0 * ratio,
    "programs": {"ours": [routine] * 2, "xla": [routine] * 4},
  }


LAYERS = [
  layer(name, chip, ratio)
  for chip, ratios in (("v3", (1.5, 2.5)), ("v5e", (3.0, 0.5)))
  for name, ratio in zip(("a", "b"), ratios, strict=True)
]


def test_ratios_are_bars_by_layer_and_chip():
  axes, *_ = draw("kernels", LAYERS).axes
  assert bars(axes) == {
    **{("a", "v3"): 1.5, ("b", "v3"): 2.5},
    **{("a", "v5e"): 3.0, ("b", "v5e"): 0.5},
  }
  assert axes.get_xlabel() == "speed / speed of XLA's fusions"
  labels = {text.get_text() for text in axes.texts}
  assert labels == {"1.50", "2.50", "3.00", "0.50"}


def test_each_chip_has_a_roofline():
  figure = draw("kernels", LAYERS)
  _, *rooflines = figure.axes
  assert len(rooflines) == 2
  for axes, name in zip(rooflines, ("v3", "v5e"), strict=True):
    chip = CHIPS[name]
    assert axes.get_title().startswith(f"{name}: ")
    assert axes.get_xlabel() == "vector operations per HBM byte"
    assert axes.get_ylabel() == "1e9 operations / s"
    # Slots * MHz * 1,024 values are operations a microsecond.
    peak = chip.vector_slots * chip.mhz * 1024 / 1e3
    (roof,) = axes.lines
    x, y = roof.get_data()
    assert max(y) == y[1] == y[2] == pytest.approx(peak)
    assert x[1] == pytest.approx(peak / chip.hbm_gb_per_s)
    assert y[0] == pytest.approx(x[0] * chip.hbm_gb_per_s)
    # Two routines of half the slots in 2 us each, in 6 us and 8,192 bytes.
    operations = 2 * 0.5 * 2 * peak * 1e3
    points = {c.get_label(): c.get_offsets() for c in axes.collections}
    for point in points["podscale"]:
      assert tuple(point) == pytest.approx(
        (operations / 8192, operations / 6 / 1e3)
      )
    assert len(points["XLA"]) == 2
  assert "64 images" in figure.get_suptitle()


def test_measured_layers_have_bars_alone():
  rows = [{"layer": "a", "ratio": 9.9}, {"layer": "b", "ratio": 61.0}]
  (axes,) = draw("kernels", rows).axes
  assert list(bars(axes).values()) == [9.9, 61.0]
  assert axes.get_xlabel() == "speed / speed of plain JAX"


@pytest.mark.parametrize(
  ("name", "rows", "values", "label"),
  [
    (
      "lars",
      [
        {"update": x, "times faster": y, "us": 1}
        for x, y in (("p", 1), ("q", 9))
      ],
      [1, 9],
      "speed / speed of optax.lars (log)",
    ),
    (
      "collectives",
      [{"part": "p", "median_s": 0.002}, {"part": "q", "median_s": 0.004}],
      [2, 4],
      "median time, ms (log)",
    ),
    (
      "collectives",
      [{"part": "p", "megabytes": 3.0}, {"group": 4, "exchange us": 1.0}],
      [3],
      "result of all collectives, MB a device (log)",
    ),
    (
      "step",
      [{"step": "plain", "images_per_s": 5.0}],
      [5],
      "images / s",
    ),
    (
      "memory",
      [{"model": "b0", "plain_bytes": 4e6, "bytes": 1e6}],
      [4, 1],
      "MB kept of an image (log)",
    ),
    (
      "input",
      [{"stage": "read", "threads": 2, "images_per_s": 7.0}],
      [7],
      "images / s",
    ),
  ],
)
def test_bars_of_other_benchmarks(name, rows, values, label):
  (axes,) = draw(name, rows).axes
  assert list(bars(axes).values()) == pytest.approx(values)
  assert axes.get_xlabel() == label


def test_an_estimated_step_is_a_stack_of_kinds():
  kinds = {"depthwise": 2000.0, "collectives": 500.0}
  rows = [{"implementation": x, "kinds": kinds} for x in ("plain", "best")]
  (axes,) = draw("step", rows).axes
  stack = {c.get_label(): [b.get_width() for b in c] for c in axes.containers}
  assert stack == {"depthwise": [2, 2], "collectives": [0.5, 0.5]}
  assert [text.get_text() for text in axes.texts] == [" 2.5", " 2.5"]


def test_slices_are_lines_beside_the_published_points():
  rows = [
    {
      "chip": "v3",
      "cores": cores,
      "images_per_ms": cores / 2,
      "published_images_per_ms": published,
    }
    for cores, published in ((128, 57.57), (2048, None))
  ]
  (axes,) = draw("scale", rows).axes
  lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
  assert lines == {
    "v3, estimate": [[128, 64], [2048, 1024]],
    "v3, published": [[128, 57.57]],
  }


def test_saved_runs_are_drawn(tmp_path, capsys):
  paths = [tmp_path / "v3.json", tmp_path / "v5e.json"]
  for path, chip in zip(paths, ("v3", "v5e"), strict=True):
    path.write_text(json.dumps([x for x in LAYERS if x["chip"] == chip]))
  picture = tmp_path / "layers.svg"
  words = ["kernels", "--from", *map(str, paths), "--plot", str(picture)]
  assert main(words) == 0
  assert "<svg" in picture.read_text()
  assert "v5e.json" in capsys.readouterr().out


def test_mistakes_are_one_line(tmp_path):
  with pytest.raises(UsageError, match="the rows have no 'ratio'"):
    draw("kernels", [{"layer": "a"}])
  with pytest.raises(UsageError, match=r"--plot .*x\.abc"):
    write_figure(tmp_path / "x.abc", draw("kernels", LAYERS))


@pytest.mark.slow
def test_the_command_draws(tmp_path, capsys):
  path = tmp_path / "lars.png"
  assert main(["lars", "--runs", "1", "--plot", str(path)]) == 0
  assert path.stat().st_size > 1000


def test_estimates_are_drawn_against_published_times():
  rows = [
    {"chip": chip, "published_us": a, "estimate_us": b, "ratio": r, "fits": f}
    for chip, a, b, r, f in (
      ("v5e", 10.0, 11.0, 1.1, ""),
      ("v5e", 20.0, 20.0, 1.0, "STEP_US"),
      ("v6e", 5.0, None, None, ""),  # could not be estimated
    )
  ]
  (axes,) = draw("calibrate", rows).axes
  (points,) = axes.collections
  assert points.get_offsets().tolist() == [[10, 11], [20, 20]]
  # The fitted one is hollow.
  assert [colour[3] for colour in points.get_facecolors()] == [1, 0]
  assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
