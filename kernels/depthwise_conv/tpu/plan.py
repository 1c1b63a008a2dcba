"""The depthwise convolution with its batch-norm ends, for TPUs."""

from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ...common.bands import merge_bands, over_bands, sum_bands
from ...common.layout import batch_axis, channel_axis
from ...common.moments import Moments
from ...tpu.chip import Chip, target_chip
from ..settings import Call, Gradients, Residuals, Results, Settings
from ..window import window
from . import backward as backward_kernel
from . import forward as forward_kernel
from .blocks import Blocks
from .geometry import Geometry
from .heuristics import Direction, choose_blocks

_KERNELS = (3, 5, 7)
_ANY = Blocks(1, 8, 8, 1, 1)
_SPARE = 4 * 2**20  # bytes; the compiler was seen to take 1.5 MiB besides


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
  if settings.padding != "SAME":
    _cannot(x, f"padding {settings.padding}")
  if kernel not in _KERNELS:
    _cannot(x, f"{kernel}x{kernel} filters, but 3x3, 5x5 and 7x7")
  if x.dtype not in (jnp.bfloat16, jnp.float32):
    _cannot(x, f"{x.dtype}, but bfloat16 and float32")
  chip, layout = target_chip(), settings.layout
  rows, cols = (
    window(size, kernel, settings.stride, settings.padding)
    for size in x.shape[:2]
  )
  g = Geometry(
    rows,
    cols,
    x.shape[batch_axis(layout)],
    x.shape[channel_axis(layout)],
    layout,
    _ANY,
    settings.activation,
    chip.tiles_vectors_by_128,
    settings.bands,
  )

  def with_blocks(direction: Direction, kernel: ModuleType) -> Geometry:
    vmem_bytes = kernel.vmem_bytes
    return g._replace(
      blocks=choose_blocks(g, x.dtype, chip, direction, vmem_bytes)
    )

  return Plan(
    chip,
    with_blocks("forward", forward_kernel),
    with_blocks("backward", backward_kernel),
  )


def _cannot(x: jax.Array, what: str) -> None:
  raise NotImplementedError(
    f"depthwise_conv_bn: pallas_tpu has no {what} (x is {x.dtype} of shape "
    f"{x.shape})"
  )


def forward(
  x: jax.Array,
  filters: jax.Array,
  scale: jax.Array | None,
  offset: jax.Array | None,
  call: Call,
) -> Results:
  """See `podscale.kernels.depthwise_conv_bn`."""
  plan = _plan_of(call)
  bands = call.settings.bands
  with jax.named_scope(_described(x, filters, call)):
    y, moments = forward_kernel.forward(
      x,
      over_bands(filters, bands),
      _over_bands(scale, bands),
      _over_bands(offset, bands),
      plan.forward,
      _vmem_limit(plan.forward, forward_kernel, x.dtype, plan.chip),
    )
    return y, merge_bands(moments, bands)


def backward(
  residuals: Residuals, cotangents: Results, call: Call
) -> Gradients:
  """The gradients of x, filters, scale and offset, in their dtypes."""
  plan = _plan_of(call)
  bands = call.settings.bands
  x, filters, scale, offset, y, moments = residuals
  dy, dmoments = cotangents

  def of_image(moments: Moments) -> Moments:
    mean, m2 = (over_bands(v, bands) for v in moments[1:])
    return moments._replace(mean=mean, m2=m2)

  with jax.named_scope(_described(x, filters, call)):
    dx, *gradients = backward_kernel.backward(
      x,
      over_bands(filters, bands),
      _over_bands(scale, bands),
      _over_bands(offset, bands),
      y,
      of_image(moments),
      dy,
      of_image(dmoments),
      plan.backward,
      _vmem_limit(plan.backward, backward_kernel, x.dtype, plan.chip),
    )
    dfilters, *vectors = (_sum_bands(v, bands) for v in gradients)
    return dx, dfilters.astype(filters.dtype), *vectors


def _vmem_limit(
  g: Geometry, kernel: ModuleType, dtype: jnp.dtype, chip: Chip
) -> int:
  """What the compiler may take, with room to spare.

  Not all of it: XLA keeps arrays in the rest meanwhile. A step of B2 on v5e,
  64 images, with all and with this: 27,840 and 26,771 us, HBM 15.2 and 12.2 GB.
  """
  taken = kernel.vmem_bytes(g, dtype)
  return min(chip.vmem_bytes, taken + taken // 4 + _SPARE)


def _over_bands(vector, bands: int):
  return None if vector is None else over_bands(vector, bands)


def _sum_bands(gradient, bands: int):
  return None if gradient is None else sum_bands(gradient, bands)


def _described(x, filters, call: Call) -> str:
  """What the compiler's messages and profiles show of the call."""
  shape, kernel = "x".join(map(str, x.shape)), filters.shape[0]
  settings, chip = call.settings, _plan_of(call).chip
  return (
    f"{x.dtype} {settings.layout} {shape} {kernel}x{kernel} stride "
    f"{settings.stride} for TPU {chip.name}"
  )


def _plan_of(call: Call) -> Plan:
  assert isinstance(call.plan, Plan)
  return call.plan
