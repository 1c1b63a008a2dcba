"""Which implementation runs where none is named."""

import jax
import jax.numpy as jnp

from ..selection.selection import Choice
from ..tpu.chip import target_chip
from ..tpu.registers import LANES
from .settings import Call, Settings
from .tpu.plan import Plan, make_plan

# Where the kernels, forward and backward together, were ahead of XLA in every
# layer that was judged, in bfloat16: the least share of the lanes that the
# channels (HWNC) or the images (HWCN) have to use. With fewer the lanes'
# padding costs more than the kernels gain. v5e and v6e were judged in the
# layout that fills more lanes, with 64 and (v5e) 128 images; in HWCN where
# channels would fill more, XLA, which chooses the layout, was ahead in three of
# four layers of v6e and one of v5e. `python -m podscale.bench kernels --chip
# v5e` prints the figures.
_LEAST_LANES = {
  ("v3", "HWNC"): 0.37,
  ("v5e", "HWNC"): 0.37,
  ("v5e", "HWCN"): 0.5,
  ("v6e", "HWNC"): 0.37,
  ("v6e", "HWCN"): 0.5,
}


def automatic_call(
  x: jax.Array, filters: jax.Array, settings: Settings
) -> Call:
  """The call of the implementation that `choose` names."""
  plan, _ = _decide(x, filters, settings)
  if plan is None:
    return xla_call(settings)
  return Call(settings, "pallas_tpu", "shifted", plan)


def xla_call(settings: Settings) -> Call:
  """The call of the implementation 'xla'."""
  return Call(settings, "grouped", "shifted")


def pallas_call(x: jax.Array, filters: jax.Array, settings: Settings) -> Call:
  """The call of the implementation 'pallas_tpu'.

  Raises:
    NotImplementedError: the kernels cannot do this.
  """
  plan = make_plan(x, filters, settings)
  return Call(settings, "pallas_tpu", "pallas_tpu", plan)


def choose(x: jax.Array, filters: jax.Array, settings: Settings) -> Choice:
  """What `depthwise_conv_bn` runs for arrays like these."""
  plan, reason = _decide(x, filters, settings)
  chip = target_chip().name
  if plan is None:
    return Choice("xla", chip, reason, {})
  blocks = {"forward": plan.forward.blocks, "backward": plan.backward.blocks}
  return Choice("pallas_tpu", chip, reason, blocks)


def _decide(x, filters, settings) -> tuple[Plan | None, str]:
  """The kernels' plan, or None for XLA; and why."""
  chip = target_chip().name
  if chip == "unknown":
    return None, "no TPU is compiled for"
  try:
    plan = make_plan(x, filters, settings)
  except NotImplementedError as error:
    return None, str(error)
  layout = settings.layout
  least = _LEAST_LANES.get((chip, layout))
  if least is None:
    return None, f"the kernel was not measured ahead of XLA on {chip}, {layout}"
  if x.dtype != jnp.bfloat16:
    return None, f"the kernel was measured in bfloat16, x is {x.dtype}"
  *_, other, size = x.shape
  what, others = ("channels", "images")[:: 1 if layout == "HWNC" else -1]
  used = _lanes_used(size)
  if used < least:
    return None, (
      f"{size} {what} use {used:.0%} of the lanes; on {chip} the kernel was "
      f"measured ahead from {least:.0%} on"
    )
  if layout == "HWCN" and used < _lanes_used(other):
    return None, (
      f"{size} {what} use {used:.0%} of the lanes; {other} {others} would use "
      "more, and XLA, which may put those there, was measured ahead"
    )
  return plan, f"measured ahead of XLA on {chip}, {layout}"


def _lanes_used(size: int) -> float:
  return size / (-(-size // LANES) * LANES)
