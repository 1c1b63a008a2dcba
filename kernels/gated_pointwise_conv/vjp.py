"""Gated 1x1 convolution with its gradients.

The backward pass keeps only the input of the arrays of its size, and
computes the normalised, activated and gated input again.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from ..common.bands import over_bands, sum_bands
from ..common.pointwise_matmul import block_diagonal, pointwise_matmul
from ..common.prologue import prologue_gradient
from ..common.recompute import recompute_from
from ..selection.selection import run
from . import tpu as pallas_tpu
from . import xla
from .settings import GateSums, Gradients, Residuals, Settings

OP = "gated_pointwise_conv_bn"


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def gated(x, weights, scale, offset, gate_params, settings) -> jax.Array:
  """Compute the result of `podscale.kernels.gated_pointwise_conv_bn`."""
  return _forward(x, weights, scale, offset, gate_params, settings)[0]


def _forward(x, weights, scale, offset, gate_params, settings: Settings):
  bands = settings.bands
  z = xla.activated(x, scale, offset, settings)
  mean = sum_bands(z.mean((0, 1)), bands) / bands
  factor, gate_vjp = jax.vjp(settings.gate, gate_params, mean)
  y = pointwise_matmul(
    xla.apply_gate(z.astype(x.dtype), factor, bands),
    block_diagonal(weights, bands),
  )
  residuals = Residuals(x, weights, scale, offset, factor, gate_vjp)
  return checkpoint_name(y, OP), residuals


def _backward(settings: Settings, residuals: Residuals, dy) -> Gradients:
  residuals, dy = recompute_from(residuals, dy)
  weights, factor = residuals.weights, residuals.factor
  transposed = block_diagonal(weights.T, settings.bands)
  dgated = pointwise_matmul(dy, transposed)
  plan = settings.selection.plan
  sums: GateSums = run(
    settings.selection,
    {
      "xla": partial(xla.gate_sums, settings),
      "pallas_tpu": partial(pallas_tpu.gate_sums, settings, plan=plan),
    },
    *(residuals, dy, dgated, transposed),
  )
  dgate_params, dmean = residuals.gate_vjp(sums.dfactor.astype(factor.dtype))

  (x, dy), dmean = recompute_from((residuals.x, dy), dmean)
  # On TPUs a second wide product is cheaper than writing and reading the first:
  # a block of 56x56x64, 24 to 144 channels in four bands, on v5e 1,480 and
  # 1,399 us.
  dgated = lax.platform_dependent(
    *(dgated, dy, transposed),
    tpu=lambda _, dy, transposed: jnp.matmul(dy, transposed),
    default=lambda dgated, *_: dgated,
  )
  dx, dscale, doffset = _through_gate(
    settings, residuals._replace(x=x), dgated, dmean
  )
  dweights = sums.dweights.astype(weights.dtype)
  return dx, dweights, dscale, doffset, dgate_params


gated.defvjp(_forward, _backward)


def _through_gate(
  settings: Settings, residuals: Residuals, dgated: jax.Array, dmean: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Compute the gradients of x, scale and offset.

  Args:
    settings: Settings of the call.
    residuals: Residuals of the forward pass.
    dgated: Cotangent of the gated input, `[h, w, n, bands * c]`.
    dmean: Cotangent of the spatial mean, `[n, c]`.
  """
  x, _, scale, offset, factor, _ = residuals
  bands, (h, w, *_) = settings.bands, x.shape
  dz = xla.apply_gate(
    dgated.astype(jnp.float32), factor.astype(jnp.float32), bands
  )
  dz = dz + over_bands(dmean / (h * w * bands), bands)[None, None]
  dx, dscale, doffset = prologue_gradient(
    dz,
    x,
    over_bands(scale, bands),
    over_bands(offset, bands),
    settings.activation,
    "HWNC",
  )
  assert dscale is not None and doffset is not None
  return dx, sum_bands(dscale, bands), sum_bands(doffset, bands)
