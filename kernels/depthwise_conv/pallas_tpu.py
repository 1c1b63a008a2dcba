"""The depthwise convolution with its batch-norm ends, for TPUs."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..moments import Moments
from ..tpu.chip import Chip, target_chip
from . import backward, forward
from .config import Blocks
from .geometry import Geometry
from .heuristics import choose_blocks
from .settings import Settings
from .shapes import window

_KERNELS = (3, 5, 7)
_ANY = Blocks(1, 8, 8, 1, 1)


class Plan(NamedTuple):
  """How the two kernels would run."""

  chip: Chip
  forward: Geometry
  backward: Geometry


def plan(x: jax.Array, filters: jax.Array, settings: Settings) -> Plan:
  """The block sizes of a call.

  Raises:
    NotImplementedError: the kernels cannot do this.
  """
  kernel = filters.shape[0]
  if settings.layout != "HWNC":
    _cannot(f"layout {settings.layout}")
  if settings.padding != "SAME":
    _cannot(f"padding {settings.padding}")
  if kernel not in _KERNELS:
    _cannot(f"{kernel}x{kernel} filters, but 3x3, 5x5 and 7x7")
  if x.dtype not in (jnp.bfloat16, jnp.float32):
    _cannot(f"{x.dtype}, but bfloat16 and float32")
  height, width, batch, channels = x.shape
  rows, cols = (
    window(size, kernel, settings.stride, settings.padding)
    for size in (height, width)
  )
  g = Geometry(rows, cols, batch, channels, _ANY, settings.activation)
  chip = target_chip()
  choose = partial(choose_blocks, g, x.dtype, chip)
  return Plan(
    chip,
    g._replace(blocks=choose(columns=14, vmem_bytes=forward.vmem_bytes)),
    g._replace(
      blocks=choose(
        columns=14 if width <= 16 else 8, vmem_bytes=backward.vmem_bytes
      )
    ),
  )


def _cannot(what: str) -> None:
  raise NotImplementedError(f"depthwise_conv_bn: pallas_tpu has no {what}")


def depthwise_conv_bn(
  x: jax.Array,
  filters: jax.Array,
  scale: jax.Array | None,
  offset: jax.Array | None,
  settings: Settings,
) -> tuple[jax.Array, Moments]:
  """See `podscale.kernels.depthwise_conv_bn`."""
  return _planned(x, filters, scale, offset, plan(x, filters, settings))


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _planned(x, filters, scale, offset, plan: Plan):
  return _forward(x, filters, scale, offset, plan)[0]


def _forward(x, filters, scale, offset, plan):
  y, moments = forward.forward(
    x, filters, scale, offset, plan.forward, plan.chip.vmem_bytes
  )
  return (y, moments), (x, filters, scale, offset, y, moments)


def _backward(plan, residuals, cotangents):
  x, filters, scale, offset, y, moments = residuals
  dy, dmoments = cotangents
  return backward.backward(
    *(x, filters, scale, offset, y, moments, dy, dmoments),
    plan.backward,
    plan.chip.vmem_bytes,
  )


_planned.defvjp(_forward, _backward)
