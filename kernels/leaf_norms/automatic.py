"""Which implementation runs on packed buffers where none is named."""

from ..dispatch import Requested
from ..tpu.chip import target_chip


def for_packed(requested: Requested) -> Requested:
  """What is requested, or the names to try in order."""
  if requested is not None:
    return requested
  return ("pallas_tpu", "xla") if target_chip().name != "unknown" else "xla"
