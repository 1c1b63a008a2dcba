"""Prefer kernels on TPUs where a caller asks for nothing."""

from ..tpu.chip import target_chip
from .dispatch import Requested, or_default


def for_tpu(requested: Requested) -> Requested:
  """What is requested, or the kernels, and XLA for what they cannot do."""
  requested = or_default(requested)
  if requested is not None:
    return requested
  return ("pallas_tpu", "xla") if target_chip().name != "unknown" else "xla"
