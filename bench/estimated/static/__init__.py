"""Estimates of TPU programs from their machine code, without a TPU.

libtpu compiles ahead of time and dumps the bundles of every fusion and kernel.
A core issues one bundle a cycle, in order. So running the scalar unit alone
counts the executed bundles exactly, and with the DMAs that share HBM it
predicts the time. `bench calibrate` compares predictions with published times.
"""

from ...chips import CHIPS
from .compile import compiler, slice_devices, target
from .estimate import Estimate, estimate_function, estimate_lowered
from .program import RoutineCost

__all__ = [
  "CHIPS",
  "Estimate",
  "RoutineCost",
  "compiler",
  "estimate_function",
  "estimate_lowered",
  "slice_devices",
  "target",
]
