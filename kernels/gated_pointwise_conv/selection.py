"""Chips on which the gated convolution's kernel is preferred to XLA."""

from ..pointwise_conv.selection import prefer
from ..selection.selection import Policy
from .tpu import plan

POLICY = Policy(
  "gated_pointwise_conv_bn",
  plan=plan,
  prefer=prefer,
  blocks=lambda plan: {"backward": plan.pixels},
)
