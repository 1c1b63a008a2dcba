"""Which implementation runs where none is named."""

import jax
import jax.numpy as jnp
from jax import lax

from ..choice import Choice
from ..moments import Moments
from ..tpu.chip import target_chip
from ..tpu.registers import LANES
from . import pallas_tpu, xla
from .settings import Settings

# Where the kernels, forward and backward together, were ahead of XLA in every
# layer of B0 to B7 with 64 images, in bfloat16: the least share of the lanes
# that the channels have to use. `python -m podscale.bench kernels --chip v5e`
# prints the figures.
_LEAST_LANES = {"v5e": 0.37, "v6e": 0.37}


def choose(x: jax.Array, filters: jax.Array, settings: Settings) -> Choice:
  """What `depthwise_conv_bn` runs for arrays like these."""
  chip = target_chip().name

  def use_xla(reason: str) -> Choice:
    return Choice("xla", chip, reason, {})

  if chip == "unknown":
    return use_xla("no TPU is compiled for")
  try:
    plan = pallas_tpu.plan(x, filters, settings)
  except NotImplementedError as error:
    return use_xla(str(error))
  if chip not in _LEAST_LANES:
    return use_xla(f"the kernel was not measured ahead of XLA on {chip}")
  if x.dtype != jnp.bfloat16:
    return use_xla(f"the kernel was measured in bfloat16, x is {x.dtype}")
  channels = x.shape[3]
  used = channels / (-(-channels // LANES) * LANES)
  if used < _LEAST_LANES[chip]:
    return use_xla(
      f"{channels} channels use {used:.0%} of the lanes; on {chip} the kernel "
      f"was measured ahead from {_LEAST_LANES[chip]:.0%} on"
    )
  return Choice(
    "pallas_tpu",
    chip,
    f"measured ahead of XLA on {chip}",
    {"forward": plan.forward.blocks, "backward": plan.backward.blocks},
  )


def depthwise_conv_bn(
  x: jax.Array,
  filters: jax.Array,
  scale: jax.Array | None,
  offset: jax.Array | None,
  settings: Settings,
) -> tuple[jax.Array, Moments]:
  """The faster implementation on the platform that this is lowered for."""
  if choose(x, filters, settings).implementation == "xla":
    return xla.depthwise_conv_bn(x, filters, scale, offset, settings)

  def on(implementation):
    return lambda *arrays: implementation(*arrays, settings)

  return lax.platform_dependent(
    *(x, filters, scale, offset),
    tpu=on(pallas_tpu.depthwise_conv_bn),
    default=on(xla.depthwise_conv_bn),
  )
