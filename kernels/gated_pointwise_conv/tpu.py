"""The gradients with a kernel for those of the gate and of the 1x1 kernel.

XLA writes what is gated to memory, where an image is in bands transposes it
there, and reads it for one product, and x again for the other. Here x is read
once for both.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from ..common.bands import over_bands, sum_bands
from ..common.pointwise_matmul import (
  as_matrix,
  block_diagonal,
  sum_diagonal_blocks,
)
from ..common.recompute import recompute_from
from ..common.tpu_prologue import Prologue
from ..tpu.pallas_call import tpu_call
from ..tpu.pixels import Plan, plan_pixels, sum_products, sums, whole
from .settings import Gradients, Residuals, Settings
from .xla import through_gate

_F32 = jnp.float32


def plan(x: jax.Array, kernel: jax.Array, bands: int) -> Plan:
  """How much of an image the kernel takes at a time.

  Raises:
    NotImplementedError: the kernel cannot do this.
  """
  images = x.shape[2]
  c, d = (bands * size for size in kernel.shape)
  return plan_pixels(
    "gated_pointwise_conv_bn",
    x,
    streamed=[(c, x.dtype), (d, x.dtype)],
    # What is activated, the cotangent of what is gated, and it itself.
    made=[(c, _F32), (c, _F32), (c, x.dtype)],
    # The matrix, the sums, what a step adds to them; factors and their sums.
    kept=[(d, c, x.dtype), *[(d, c, _F32)] * 2, *[(images, c, _F32)] * 3],
  )


def gradients(
  settings: Settings, residuals: Residuals, dy: jax.Array, plan: Plan
) -> Gradients:
  """As `xla.gradients`."""
  kernel, factor, bands = residuals.kernel, residuals.factor, settings.bands
  dfactor, dkernel = _sums(settings, residuals, dy, plan)
  dfactor = sum_bands(dfactor, bands).astype(factor.dtype)
  dgate_params, dmean = residuals.gate_vjp(dfactor)
  dkernel = sum_diagonal_blocks(dkernel, bands).T.astype(kernel.dtype)

  (x, dy), dmean = recompute_from((residuals.x, dy), dmean)
  dgated = jnp.matmul(dy, block_diagonal(kernel.T, bands))
  dx, dscale, doffset = through_gate(
    settings, residuals._replace(x=x), dgated, dmean
  )
  return dx, dkernel, dscale, doffset, dgate_params


def _sums(
  settings: Settings, residuals: Residuals, dy: jax.Array, plan: Plan
) -> tuple[jax.Array, jax.Array]:
  """The gradients of the factor, `[n, c]`, and of the kernel, `[d, c]`.

  Of all bands, in float32.
  """
  x, kernel, scale, offset, factor, _ = residuals
  bands, (*_, images, c), d = settings.bands, x.shape, dy.shape[3]
  half = Prologue(None, None, settings.activation).slope_factor
  results = tpu_call(
    partial(_kernel, settings),
    name="gated_pointwise_conv_bn_backward",
    grid=(1, plan.steps),
    inputs={
      "x": plan.streamed(x),
      "dy": plan.streamed(dy),
      "scale": whole(half * over_bands(scale, bands)[None]),
      "offset": whole(half * over_bands(offset, bands)[None]),
      "factor": whole(over_bands(factor, bands).astype(_F32)),
      "kernel": whole(block_diagonal(kernel.T, bands)),
    },
    outputs={
      "dfactor": sums((images, c)),
      "dkernel": sums((d, c)),
    },
    scratch={},
    vmem_limit_bytes=plan.vmem_limit_bytes,
    cost=pl.CostEstimate(
      flops=(4 * d + 10) * x.size,
      transcendentals=x.size if settings.activation == "silu" else 0,
      bytes_accessed=x.nbytes + dy.nbytes,
    ),
  )
  return results["dfactor"], results["dkernel"]


def _kernel(settings: Settings, refs) -> None:
  @pl.when(pl.program_id(1) == 0)
  def _():
    refs.dfactor[...] = jnp.zeros_like(refs.dfactor)
    refs.dkernel[...] = jnp.zeros_like(refs.dkernel)

  x, dy = refs.x[...], as_matrix(refs.dy[...])
  prologue = Prologue(
    refs.scale[...][None], refs.offset[...][None], settings.activation
  )
  z = prologue(x.astype(_F32))
  gated = (z * refs.factor[...][None]).astype(x.dtype)
  dgated = jnp.dot(dy, refs.kernel[...], preferred_element_type=_F32)
  refs.dfactor[...] += (dgated.reshape(x.shape) * z).sum(0)
  refs.dkernel[...] += sum_products(dy, as_matrix(gated))
