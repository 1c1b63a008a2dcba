"""The depthwise convolution with its batch-norm ends, as Pallas kernels."""

from types import ModuleType

import jax
import jax.numpy as jnp

from ...common.bands import merge_bands, over_bands, sum_bands
from ...common.moments import Moments
from ...tpu.chip import Chip
from ..settings import Call, Gradients, Residuals, Results
from . import backward as backward_kernel
from . import forward as forward_kernel
from .geometry import Geometry
from .plan import Plan

_SPARE = 4 * 2**20  # bytes, for the compiler's own buffers


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
  with jax.named_scope(_scope_name(x, filters, call)):
    y, moments = forward_kernel.forward(
      x,
      over_bands(filters, bands),
      _over_bands(scale, bands),
      _over_bands(offset, bands),
      plan.forward,
      _vmem_limit(plan.forward, forward_kernel, x.dtype, plan.chip),
    )
    return y, moments and merge_bands(moments, bands)


def backward(
  residuals: Residuals, cotangents: Results, call: Call
) -> Gradients:
  """Compute the gradients of x, filters, scale and offset, in their dtypes."""
  plan = _plan_of(call)
  bands = call.settings.bands
  x, filters, scale, offset, y, moments = residuals
  dy, dmoments = cotangents

  def repeat(moments: Moments | None) -> Moments | None:
    if moments is None:
      return None
    mean, m2 = (over_bands(v, bands) for v in moments[1:])
    return moments._replace(mean=mean, m2=m2)

  with jax.named_scope(_scope_name(x, filters, call)):
    dx, *gradients = backward_kernel.backward(
      x,
      over_bands(filters, bands),
      _over_bands(scale, bands),
      _over_bands(offset, bands),
      y,
      repeat(moments),
      dy,
      repeat(dmoments),
      plan.backward,
      _vmem_limit(plan.backward, backward_kernel, x.dtype, plan.chip),
    )
    dfilters, *vectors = (_sum_bands(v, bands) for v in gradients)
    return dx, dfilters.astype(filters.dtype), *vectors


def _vmem_limit(
  g: Geometry, kernel: ModuleType, dtype: jnp.dtype, chip: Chip
) -> int:
  """Compute how much VMEM the compiler may use, in bytes.

  The limit is below the chip's VMEM, because XLA keeps arrays in the rest. For
  a step of B2 on v5e with 64 images, all of VMEM gave 27,840 us and 15.2 GB of
  HBM traffic; this limit gave 26,771 us and 12.2 GB (bench/results/step.md).
  """
  taken = kernel.vmem_bytes(g, dtype)
  return min(chip.vmem_bytes, taken + taken // 4 + _SPARE)


def _over_bands(vector, bands: int):
  return None if vector is None else over_bands(vector, bands)


def _sum_bands(gradient, bands: int):
  return None if gradient is None else sum_bands(gradient, bands)


def _scope_name(x, filters, call: Call) -> str:
  """Describe the call for the compiler's messages and for profiles."""
  shape, kernel_size = "x".join(map(str, x.shape)), filters.shape[0]
  settings, chip = call.settings, _plan_of(call).chip
  return (
    f"{x.dtype} {settings.layout} {shape} {kernel_size}x{kernel_size} stride "
    f"{settings.stride} for TPU {chip.name}"
  )


def _plan_of(call: Call) -> Plan:
  plan = call.selection.plan
  assert isinstance(plan, Plan)
  return plan
