"""Chips on which the kernel of the leaf norms is preferred to XLA."""

from ..packed.leaf_map import LeafMap
from ..packed.norms.tpu import check_vmem
from ..selection.requested import Implementation
from ..selection.selection import Policy


def _plan(leaf_map: LeafMap) -> None:
  check_vmem(leaf_map, buffers=1)


def _prefer(chip: str, leaf_map: LeafMap) -> tuple[Implementation, str]:
  del leaf_map
  return "pallas_tpu", f"estimated ahead of XLA on v3 to tpu7x; this is {chip}"


POLICY = Policy("leaf_norms", plan=_plan, prefer=_prefer)
