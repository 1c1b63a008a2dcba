"""Sums of the gradients of gate and weights, by one kernel.

XLA writes the gated input to memory, transposes it there where an image is in
bands, reads it for one product, and reads x again for the other. The kernel
reads x once for both.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from ..common.activation import transcendentals
from ..common.bands import over_bands, sum_bands
from ..common.pointwise_matmul import as_matrix, sum_diagonal_blocks
from ..common.tpu_prologue import Prologue
from ..tpu.pallas_call import tpu_call
from ..tpu.pixels import Plan, plan_pixels, sum_products, sums, whole
from .settings import GateSums, Residuals, Settings

_F32 = jnp.float32


def plan(
  x: jax.Array, weights: jax.Array, bands: int, batch_in_lanes: bool = False
) -> Plan:
  """Choose the number of pixels of a grid step.

  Raises:
    NotImplementedError: The kernel cannot run.
  """
  del batch_in_lanes  # matters to the choice only
  images = x.shape[2]
  c, d = (bands * size for size in weights.shape)
  return plan_pixels(
    "gated_pointwise_conv_bn",
    x,
    streamed=[(c, x.dtype), (d, x.dtype)],
    # The activated input, and the gated input with its cotangent.
    made=[(c, _F32), (c, _F32), (c, x.dtype)],
    # The matrix, its sums and a step's; the factor, its sums and a step's.
    kept=[(d, c, x.dtype), *[(d, c, _F32)] * 2, *[(images, c, _F32)] * 3],
  )


def gate_sums(
  settings: Settings,
  residuals: Residuals,
  dy: jax.Array,
  dgated: jax.Array,
  transposed: jax.Array,
  plan: Plan,
) -> GateSums:
  """Compute `xla.gate_sums` in one pass over x and dy."""
  del dgated
  x, _, scale, offset, factor, _ = residuals
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
      "weights": whole(transposed),
    },
    outputs={
      "dfactor": sums((images, c)),
      "dweights": sums((d, c)),
    },
    scratch={},
    vmem_limit_bytes=plan.vmem_limit_bytes,
    cost=pl.CostEstimate(
      flops=(4 * d + 10) * x.size,
      transcendentals=x.size * transcendentals(settings.activation),
      bytes_accessed=x.nbytes + dy.nbytes,
    ),
  )
  return GateSums(
    sum_bands(results["dfactor"], bands),
    sum_diagonal_blocks(results["dweights"], bands).T,
  )


def _kernel(settings: Settings, refs) -> None:
  @pl.when(pl.program_id(1) == 0)
  def _():
    refs.dfactor[...] = jnp.zeros_like(refs.dfactor)
    refs.dweights[...] = jnp.zeros_like(refs.dweights)

  x, dy = refs.x[...], as_matrix(refs.dy[...])
  prologue = Prologue(
    refs.scale[...][None], refs.offset[...][None], settings.activation
  )
  z = prologue(x.astype(_F32))
  gated = (z * refs.factor[...][None]).astype(x.dtype)
  dgated = jnp.dot(dy, refs.weights[...], preferred_element_type=_F32)
  refs.dfactor[...] += (dgated.reshape(x.shape) * z).sum(0)
  refs.dweights[...] += sum_products(dy, as_matrix(gated))
