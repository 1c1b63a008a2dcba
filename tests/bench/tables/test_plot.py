"""The picture of a benchmark."""

import matplotlib.image
import pytest

from podscale.bench.__main__ import main
from podscale.bench.tables.plot import write_plot
from podscale.train.errors import UsageError

LAYERS = [
  {"layer": f"layer {i}", "of_bound": 0.5 + i / 10, "ratio": 1.5}
  for i in range(3)
]


def width(path):
  return matplotlib.image.imread(path).shape[1]


def test_bounds_and_ratios_are_two_panels(tmp_path):
  path = tmp_path / "layers.png"
  write_plot(path, "layers", LAYERS)
  both = width(path)
  write_plot(path, "layers", [{**row, "of_bound": None} for row in LAYERS])
  assert width(path) < both


def test_ways_to_do_one_thing_are_drawn_by_their_times(tmp_path):
  path = tmp_path / "steps.svg"
  rows = [
    {"implementation": "plain", "step_us": 300.0},
    {"implementation": "best", "step_us": 200.0},
  ]
  write_plot(path, "steps", rows)
  assert "<svg" in path.read_text()


def test_what_cannot_be_drawn_is_one_line(tmp_path):
  with pytest.raises(UsageError, match="neither bounds nor ratios"):
    write_plot(tmp_path / "x.png", "x", [{"layer": "a", "us": 1.0}])
  with pytest.raises(UsageError, match=r"--plot .*x\.abc"):
    write_plot(tmp_path / "x.abc", "x", LAYERS)


@pytest.mark.slow
def test_the_command_draws(tmp_path, capsys):
  path = tmp_path / "lars.png"
  assert main(["lars", "--runs", "1", "--plot", str(path)]) == 0
  assert path.stat().st_size > 1000
