"""Estimates of the paper's Table 1: a training step on more and more cores.

The step is compiled and estimated once for each chip, for the smallest slice in
`SLICES`. The times of its collectives on larger slices come from
`collective_cost`. So a core's own time is the same on all slices, although its
share of the update shrinks.
"""

from collections.abc import Sequence
from typing import Any

from ..chips import CHIPS
from ..tables.paper_table import PAPER_TABLE, SLICES
from .collective_cost import Slice, scatter_us
from .implementations import StepImplementation
from .static import compiler, slice_devices
from .step import Movement, compiled_step, pod_config, slice_of


def scaling_rows(
  model: str,
  *,
  chips: Sequence[str],
  per_core: int,
  implementation: StepImplementation,
) -> list[dict[str, Any]]:
  """Predict a model's throughput on slices of all sizes.

  Args:
    model: Member of the family.
    chips: Chips, names from `SLICES`.
    per_core: Images on a core; the paper's table has 32.
    implementation: Implementation of the step.

  Returns:
    A row for each slice: `chip`, `implementation`, `cores`, `batch`,
    `images_per_ms`, `all_reduce_percent` (the share of the step in collectives
    of any kind); and, where the paper has them and else None,
    `published_images_per_ms`, `of_published`, the predicted rate divided by the
    published one, and `published_percent`.
  """
  return [
    row
    for chip in chips
    for row in _rows_of_chip(model, chip, per_core, implementation)
  ]


def _rows_of_chip(
  model: str, chip: str, per_core: int, implementation: StepImplementation
) -> list[dict[str, Any]]:
  sides = SLICES[chip]
  smallest = min(sides)
  name = "x".join(map(str, sides[smallest]))
  devices = slice_devices(f"{chip}:{name}")
  config = pod_config(model, per_core * smallest)
  step = compiled_step(
    config, chip=chip, devices=devices, implementation=implementation
  )
  cores = slice_of(CHIPS[chip], devices).cores
  rows = []
  for count, box in sides.items():
    slice_ = Slice(CHIPS[chip], box, cores)
    us = collective_us(step.movements, smallest, slice_)
    rows.append(
      _row(model, implementation, chip, count, per_core, step.core_us, us)
    )
  return rows


def collective_us(
  movements: Sequence[Movement], devices: int, slice_: Slice
) -> float:
  """Estimate the time of a step's collectives on another slice.

  Args:
    movements: Collectives of the compiled step.
    devices: Number of devices for which the step was compiled.
    slice_: The other slice.

  Returns:
    Microseconds.
  """
  us, whole = 0.0, 0
  for movement in movements:
    if movement.op == "all-reduce":
      everywhere = movement.group in (0, devices)
      us += movement._replace(group=0 if everywhere else movement.group).us(
        slice_
      )
    else:
      # The first collective along the dimensions moves the whole buffer. XLA
      # cuts some of them into steps, which are permutes.
      scattered = movement.op == "reduce-scatter"
      each = movement.bytes * (movement.group if scattered else 1)
      whole = max(whole, each)
  # The buffer is scattered, and later gathered.
  return us + (2 * scatter_us(whole, slice_) if whole else 0)


def _row(
  model, implementation, chip, cores, per_core, core_us, us
) -> dict[str, Any]:
  batch, step_us = cores * per_core, core_us + us
  rate = batch / step_us * 1e3
  known = chip == "v3" and per_core == 32
  row = PAPER_TABLE.get((model, cores)) if known else None
  published, percent = row or (None, None)
  return {
    "chip": chip,
    "implementation": implementation,
    "cores": cores,
    "batch": batch,
    "images_per_ms": rate,
    "all_reduce_percent": 100 * us / step_us,
    "published_images_per_ms": published,
    "of_published": rate / published if published else None,
    "published_percent": percent,
    "compiler": compiler(),
  }
