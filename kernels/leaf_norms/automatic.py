"""Which implementation runs on packed buffers where none is named."""

from typing import Any

from ..choice import Choice
from ..dispatch import Requested
from ..packing import Packed
from ..tpu.chip import target_chip


def for_packed(requested: Requested) -> Requested:
  """What is requested, or the names to try in order."""
  if requested is not None:
    return requested
  return ("pallas_tpu", "xla") if target_chip().name != "unknown" else "xla"


def describe(tree: Any, *others: Any, **settings: Any) -> Choice:
  """What `lars_update` and `leaf_norms` run for trees like these."""
  del others, settings
  chip = target_chip().name
  if not isinstance(tree, Packed):
    reason = "packing the trees takes longer than the kernels gain"
    return Choice("xla", chip, reason, {})
  if chip == "unknown":
    return Choice("xla", chip, "no TPU is compiled for", {})
  reason = "ahead of XLA on v3 and v5e; XLA where VMEM does not hold all sums"
  return Choice("pallas_tpu", chip, reason, {})
