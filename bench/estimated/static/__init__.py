"""Judging TPU programs without a TPU.

libtpu compiles ahead of time and dumps the bundles of every kernel. A core
issues one bundle a cycle, in order; so running the scalar unit alone gives the
bundles executed, exactly, and with the DMAs on one HBM channel a prediction of
the time. It was never compared with a real TPU.
"""

from .chips import CHIPS
from .compile import compiler, slice_devices, target
from .estimate import Judged, judge, judge_lowered
from .program import KernelCost

__all__ = [
  "CHIPS",
  "Judged",
  "KernelCost",
  "compiler",
  "judge",
  "judge_lowered",
  "slice_devices",
  "target",
]
