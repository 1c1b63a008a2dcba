"""Implementations of a training step that estimates put side by side."""

from typing import Literal, get_args

StepImplementation = Literal["plain", "best", "xla", "pallas_tpu"]
STEP_IMPLEMENTATIONS: tuple[StepImplementation, ...] = get_args(
  StepImplementation
)
"""The recipe in plain JAX; podscale's step as training runs it; the same with
all ops by XLA; the same with kernels wherever an op has one."""
