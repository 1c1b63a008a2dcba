"""Chips on which the 1x1 convolutions' kernels are preferred to XLA."""

from typing import Any

import jax
import jax.numpy as jnp

from ..selection.requested import Implementation
from ..selection.selection import Policy
from .tpu import plan

# Chips on which whole training steps, in bfloat16, were ahead of XLA's with the
# kernels of `pointwise_conv_bn` and `gated_pointwise_conv_bn`; the figures are
# in bench/results/step.md.
_AHEAD_ON = ("v5e", "v6e")


def prefer(
  chip: str, x: jax.Array, weights: Any, bands: int, batch_in_lanes: bool
) -> tuple[Implementation, str]:
  """Compare the kernels with XLA by what was estimated for the chip."""
  del weights, bands
  if chip not in _AHEAD_ON:
    return "xla", f"the kernel was not estimated ahead of XLA on {chip}"
  if x.dtype != jnp.bfloat16:
    return "xla", f"the kernel was estimated in bfloat16, x is {x.dtype}"
  if batch_in_lanes:
    return "xla", "the batch fills the lanes, the kernel has channels there"
  return "pallas_tpu", f"estimated ahead of XLA on {chip}"


POLICY = Policy(
  "pointwise_conv_bn",
  plan=plan,
  prefer=prefer,
  blocks=lambda plan: {"backward": plan.pixels},
)
