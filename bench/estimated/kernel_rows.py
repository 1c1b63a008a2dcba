"""What is said of each XLA fusion and Pallas kernel of a judged program."""

from collections.abc import Iterable
from typing import Any

from .static import KernelCost

TOP = 20
"""How many kernels of a large program are shown: those that take longest."""


def kernel_row(kernel: KernelCost) -> dict[str, Any]:
  """A kernel's figures, over all its calls.

  Args:
    kernel: As the judge has it.

  Returns:
    `kernel`, its name; `calls`; `us`; `bundles` executed; `vector_slots`, the
    fraction of them used; `spills` of vector registers; `hbm_bytes`;
    `stall_us`, waiting for DMAs; `bound`, whether "HBM" or its "bundles" would
    take longer alone; and `of_bound`, what fraction of `us` that is.
  """
  bound_us = max(kernel.hbm_us, kernel.issue_us)
  return {
    "kernel": kernel.name,
    "calls": kernel.calls,
    "us": kernel.microseconds,
    "bundles": kernel.bundles,
    "vector_slots": kernel.slots.get("VALU", 0.0),
    "spills": kernel.spills,
    "hbm_bytes": kernel.hbm_bytes,
    "stall_us": kernel.stall_us,
    "bound": "HBM" if kernel.hbm_us > kernel.issue_us else "bundles",
    "of_bound": bound_us / kernel.microseconds if kernel.microseconds else 0.0,
  }


def longest_first(kernels: Iterable[KernelCost]) -> list[KernelCost]:
  """The kernels by what they take."""
  return sorted(kernels, key=lambda kernel: -kernel.microseconds)
