"""Table rows for the XLA fusions and Pallas kernels of a program."""

from collections.abc import Iterable
from typing import Any

from .static import RoutineCost

TOP = 20
"""Number of rows shown of a large program: the routines that take longest."""


def routine_row(routine: RoutineCost) -> dict[str, Any]:
  """Return the figures of a fusion or kernel, over all its calls.

  Args:
    routine: Cost, from an `Estimate`.

  Returns:
    `kernel`, its name; `calls`; `us`; `bundles` executed; `vector_slots`, the
    fraction of vector slots used; `spills` of vector registers; `hbm_bytes`;
    `stall_us`, waiting for DMAs; `bound`, "HBM" or "bundles", whichever would
    take longer alone; and `of_bound`, that time as a fraction of `us`.
  """
  bound_us = max(routine.hbm_us, routine.issue_us)
  return {
    "kernel": routine.name,
    "calls": routine.calls,
    "us": routine.microseconds,
    "bundles": routine.bundles,
    "vector_slots": routine.slots.get("VALU", 0.0),
    "spills": routine.spills,
    "hbm_bytes": routine.hbm_bytes,
    "stall_us": routine.stall_us,
    "bound": "HBM" if routine.hbm_us > routine.issue_us else "bundles",
    "of_bound": bound_us / routine.microseconds
    if routine.microseconds
    else 0.0,
  }


def longest_first(routines: Iterable[RoutineCost]) -> list[RoutineCost]:
  """Sort routines by their time, the longest first."""
  return sorted(routines, key=lambda routine: -routine.microseconds)
