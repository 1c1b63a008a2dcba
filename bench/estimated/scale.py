"""Table 1 of the paper rebuilt: a step on more and more cores, ESTIMATED.

The step is compiled and judged once for each chip, for its smallest slice here;
what its collectives take on the others is what `collectives.cost` says. So a
core's own time is the same everywhere; that its share of the update shrinks is
left out. No constant is fitted.
"""

from collections.abc import Sequence
from typing import Any

from ..tables.paper_table import SLICES, TABLE_1
from .collective_cost import Slice, scatter_us
from .static import compiler, slice_devices
from .step import Movement, judge_step, pod_config, slice_of
from .ways import Way


def scaling_rows(
  model: str, *, chips: Sequence[str], per_core: int, way: Way
) -> list[dict[str, Any]]:
  """Predicts a model's throughput on slices of all sizes.

  Args:
    model: Of the family.
    chips: Of `SLICES`.
    per_core: Images on a core; the paper's table has 32.
    way: To do the step; see `step_estimates`.

  Returns:
    A row for each slice: `chip`, `implementation`, `cores`, `batch`,
    `images_per_ms`, `all_reduce_percent` (of the step in any collective); and,
    where the paper has it and else None, `published_images_per_ms`, the ratio
    to it, and `published_percent`.
  """
  return [
    row for chip in chips for row in _rows_of_chip(model, chip, per_core, way)
  ]


def _rows_of_chip(model, chip, per_core, way) -> list[dict[str, Any]]:
  sides = SLICES[chip]
  smallest = min(sides)
  name = "x".join(map(str, sides[smallest]))
  devices = slice_devices(f"{chip}:{name}")
  config = pod_config(model, per_core * smallest)
  step = judge_step(config, chip=chip, devices=devices, way=way)
  cores = slice_of(chip, devices).cores
  rows = []
  for count, box in sides.items():
    slice_ = Slice(chip, box, cores)
    us = collective_us(step.movements, smallest, slice_)
    rows.append(_row(model, way, slice_, count, per_core, step.core_us, us))
  return rows


def collective_us(
  movements: Sequence[Movement], devices: int, slice_: Slice
) -> float:
  """What collectives that were compiled for `devices` take on another slice."""
  us, whole = 0.0, 0
  for movement in movements:
    if movement.op == "all-reduce":
      everywhere = movement.group in (0, devices)
      us += movement._replace(group=0 if everywhere else movement.group).us(
        slice_
      )
    else:
      # Of those along the dimensions, the first moves the whole. What permutes
      # is one that XLA cut into its steps.
      scattered = movement.op == "reduce-scatter"
      each = movement.bytes * (movement.group if scattered else 1)
      whole = max(whole, each)
  # Scattered, and gathered again.
  return us + (2 * scatter_us(whole, slice_) if whole else 0)


def _row(model, way, slice_, cores, per_core, core_us, us) -> dict[str, Any]:
  batch, step_us = cores * per_core, core_us + us
  rate = batch / step_us * 1e3
  known = slice_.chip == "v3" and per_core == 32
  row = TABLE_1.get((model, cores)) if known else None
  published, percent = row or (None, None)
  return {
    "chip": slice_.chip,
    "implementation": way,
    "cores": cores,
    "batch": batch,
    "images_per_ms": rate,
    "all_reduce_percent": 100 * us / step_us,
    "published_images_per_ms": published,
    "of_published": rate / published if published else None,
    "published_percent": percent,
    "compiler": compiler(),
  }
