"""Which implementation runs where none is named."""

import jax
import jax.numpy as jnp

from ..choice import Choice
from ..tpu.chip import target_chip
from ..tpu.registers import LANES
from . import pallas_tpu
from .call import Call, Settings
from .pallas_tpu import Plan

# Where the kernels, forward and backward together, were ahead of XLA in every
# layer that was judged, with 64 images in bfloat16 (on v5e 53 of the layers of
# B0 to B7, on v3 and v6e those of B0): the least share of the lanes that the
# channels have to use. `python -m podscale.bench kernels --chip v5e` prints
# the figures.
_LEAST_LANES = {"v3": 0.37, "v5e": 0.37, "v6e": 0.37}


def automatic_call(
  x: jax.Array, filters: jax.Array, settings: Settings
) -> Call:
  """The call of the implementation that `choose` names."""
  plan, _ = _decide(x, filters, settings)
  if plan is None:
    return xla_call(settings)
  return Call(settings, "pallas_tpu", "taps", plan)


def xla_call(settings: Settings) -> Call:
  """The call of the implementation 'xla'."""
  return Call(settings, "conv", "taps")


def pallas_call(x: jax.Array, filters: jax.Array, settings: Settings) -> Call:
  """The call of the implementation 'pallas_tpu'.

  Raises:
    NotImplementedError: the kernels cannot do this.
  """
  plan = pallas_tpu.plan(x, filters, settings)
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
    plan = pallas_tpu.plan(x, filters, settings)
  except NotImplementedError as error:
    return None, str(error)
  if chip not in _LEAST_LANES:
    return None, f"the kernel was not measured ahead of XLA on {chip}"
  if x.dtype != jnp.bfloat16:
    return None, f"the kernel was measured in bfloat16, x is {x.dtype}"
  channels = x.shape[3]
  used = channels / (-(-channels // LANES) * LANES)
  if used < _LEAST_LANES[chip]:
    return None, (
      f"{channels} channels use {used:.0%} of the lanes; on {chip} the kernel "
      f"was measured ahead from {_LEAST_LANES[chip]:.0%} on"
    )
  return plan, f"measured ahead of XLA on {chip}"
