"""Estimates of the LARS update of a whole network on a TPU."""

from collections.abc import Sequence
from typing import Any

import jax

from ..compiled.hlo import read_instructions
from ..workloads.collectives import model_sizes
from ..workloads.lars import sharded_update, updates
from .routine_rows import TOP, longest_first, routine_row
from .static import Estimate, compiler, estimate_function, estimate_lowered

# The norms read w and g; the step reads w, g and v, and writes w and v.
_PASSES = 7


def estimate_updates(
  model: str, *, chip: str, devices: Sequence[jax.Device]
) -> list[dict[str, Any]]:
  """Estimate each implementation for one core, and a shard of a slice.

  Args:
    model: Member of the family.
    chip: One of `CHIPS`.
    devices: All devices of the slice.

  Returns:
    A row for each: microseconds; the speed as a multiple of the first's; the
    number of fusions and kernels that the core runs, and of Pallas kernels
    among them; megabytes of HBM, and the same as a multiple of the least
    possible, `7 * 4` bytes a parameter; seconds to compile; the kernels whose
    time is unknown, with the reason; and under "top" a `routine_row` for those
    that take longest. The row of a shard leaves out the all-reduce of the norms
    and the barrier with which a program begins on a slice.
  """
  params = model_sizes(model).params
  estimates = {
    update.name: estimate_function(
      update.function,
      *update.args,
      chip=chip,
      free_layouts=True,
      donate=update.donate,
    )
    for update in updates(params)
  }
  shard = estimate_lowered(sharded_update(params, devices), chip)
  estimates[f"one of {len(devices)} shards"] = _without_collectives(shard)
  first = next(iter(estimates.values()))
  floor = _PASSES * sum(4 * x.size for x in jax.tree.leaves(params))
  return [
    {
      "update": name,
      "us": e.microseconds,
      "times faster": first.microseconds / e.microseconds,
      "kernels": sum(routine.calls for routine in e.routines),
      "pallas": e.hlo.count('"tpu_custom_call"'),
      "megabytes": e.hbm_bytes / 1e6,
      "of the least": e.hbm_bytes / floor,
      "compile_s": e.compile_s,
      "failures": [note for note in e.unmodelled if "FAILED" in note],
      "compiler": compiler(),
      "top": [routine_row(r) for r in longest_first(e.routines)[:TOP]],
    }
    for name, e in estimates.items()
  ]


def _without_collectives(estimate: Estimate) -> Estimate:
  instructions = read_instructions(estimate.hlo)
  routines = [
    routine
    for routine in estimate.routines
    if not instructions[routine.name].collective
  ]
  return estimate._replace(
    microseconds=sum(r.microseconds for r in routines),
    hbm_bytes=sum(r.hbm_bytes for r in routines),
    routines=routines,
  )
