"""Chips and shapes on which the depthwise kernels are preferred to XLA."""

import jax
import jax.numpy as jnp

from ..selection.requested import Implementation
from ..selection.selection import Policy
from ..tpu.registers import LANES
from .settings import Settings
from .tpu.plan import make_plan

# Least share of the lanes that channels (HWNC) or images (HWCN) have to fill:
# from there on the kernels, forward and backward together, were ahead of XLA in
# every estimated layer, in bfloat16. Below it, padding costs more than the
# kernels gain. v5e and v6e were estimated in the layout that fills more lanes,
# with 64 and (v5e) 128 images. In HWCN, where channels would fill more, XLA,
# which chooses the layout, was ahead in three of four layers of v6e and one of
# v5e. `python -m podscale.bench kernels --chip v5e` prints the figures.
_LEAST_LANES = {
  ("v3", "HWNC"): 0.37,
  ("v5e", "HWNC"): 0.37,
  ("v5e", "HWCN"): 0.5,
  ("v6e", "HWNC"): 0.37,
  ("v6e", "HWCN"): 0.5,
}

# Smaller images, and fewer of them where they fill the sublanes, are left to
# XLA. Estimates for v5e, forward and backward of B0's layers with 32 channels
# and more: one image of 64 pixels 0.32 to 0.96 times as fast as XLA; 8 images
# 0.61 and 0.64 where the input is 2x2, 1.05 to 1.68 where it is larger; 16
# images of 32 pixels 0.54 to 0.94 at 2x2 and 1x1, 1.12 to 1.67 above. Other
# chips have the same limits. `python -m podscale.bench kernels --chip v5e
# --resolution 64 --batch-size 8` prints such figures.
_LEAST_SIDE = 3
_LEAST_IMAGES = 8


def takes_batch_in_lanes(chip: str) -> bool:
  """Tell if the kernels were estimated ahead with the batch in lanes."""
  return (chip, "HWCN") in _LEAST_LANES


def _prefer(
  chip: str, x: jax.Array, filters: jax.Array, settings: Settings
) -> tuple[Implementation, str]:
  """Compare the kernels with XLA by what was estimated for the chip."""
  del filters
  layout = settings.layout
  least = _LEAST_LANES.get((chip, layout))
  if least is None:
    return "xla", (
      f"the kernel was not estimated ahead of XLA on {chip}, {layout}"
    )
  if x.dtype != jnp.bfloat16:
    return "xla", f"the kernel was estimated in bfloat16, x is {x.dtype}"
  side = min(x.shape[0] * settings.bands, x.shape[1])
  if side < _LEAST_SIDE:
    return "xla", (
      f"images of {side} rows or columns; on {chip} the kernel was estimated "
      f"ahead from {_LEAST_SIDE} on"
    )
  if layout == "HWNC" and x.shape[2] < _LEAST_IMAGES:
    return "xla", (
      f"{x.shape[2]} images; on {chip} the kernel was estimated ahead from "
      f"{_LEAST_IMAGES} on"
    )
  *_, other, size = x.shape
  in_lanes, in_sublanes = "channels", "images"
  if layout == "HWCN":
    in_lanes, in_sublanes = in_sublanes, in_lanes
  used = _lanes_used(size)
  if used < least:
    return "xla", (
      f"{size} {in_lanes} use {used:.0%} of the lanes; on {chip} the kernel "
      f"was estimated ahead from {least:.0%} on"
    )
  if layout == "HWCN" and used < _lanes_used(other):
    return "xla", (
      f"{size} {in_lanes} use {used:.0%} of the lanes; {other} {in_sublanes} "
      "would use more, and XLA, which may put those there, was estimated ahead"
    )
  return "pallas_tpu", f"estimated ahead of XLA on {chip}, {layout}"


def _lanes_used(size: int) -> float:
  return size / (-(-size // LANES) * LANES)


POLICY = Policy(
  "depthwise_conv_bn",
  plan=make_plan,
  prefer=_prefer,
  blocks=lambda plan: {
    "forward": plan.forward.blocks,
    "backward": plan.backward.blocks,
  },
)
