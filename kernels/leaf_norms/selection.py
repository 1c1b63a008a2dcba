"""What `describe` says of ops on packed trees."""

from typing import Any

from ..packed.packing import Packed
from ..selection.selection import Choice
from ..tpu.chip import target_chip


def describe(tree: Any, *others: Any, **settings: Any) -> Choice:
  """What `lars_update` and `leaf_norms` run for trees like these."""
  del others, settings
  chip = target_chip().name
  if not isinstance(tree, Packed):
    reason = "packing the trees takes longer than the kernels gain"
    return Choice("xla", chip, reason, {})
  if chip == "unknown":
    return Choice("xla", chip, "no TPU is compiled for", {})
  reason = "ahead of XLA on v3 to tpu7x; XLA where VMEM does not hold all sums"
  return Choice("pallas_tpu", chip, reason, {})
