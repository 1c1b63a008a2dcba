"""Gated 1x1 convolution in plain JAX: prologue, gate and sums of gradients."""

import jax
import jax.numpy as jnp

from ..common.bands import over_bands, sum_bands
from ..common.pointwise_matmul import contract_pixels, sum_diagonal_blocks
from ..common.prologue import prologue
from .settings import GateSums, Residuals, Settings

_F32 = jnp.float32


def gate_sums(
  settings: Settings,
  residuals: Residuals,
  dy: jax.Array,
  dgated: jax.Array,
  transposed: jax.Array,
) -> GateSums:
  """Sum the gradients of the factor and the weights over pixels.

  Args:
    settings: Settings of the call.
    residuals: Residuals of the forward pass.
    dy: Cotangent of the result, `[h, w, n, bands * d]`.
    dgated: Cotangent of the gated input, `[h, w, n, bands * c]`.
    transposed: Transposed block-diagonal weights, from which a kernel computes
      dgated itself.
  """
  del transposed
  x, _, scale, offset, factor, _ = residuals
  bands = settings.bands
  z = activated(x, scale, offset, settings).astype(x.dtype)
  dfactor = (dgated.astype(_F32) * z.astype(_F32)).sum((0, 1))
  dweights = contract_pixels(apply_gate(z, factor, bands), dy)
  return GateSums(
    sum_bands(dfactor, bands), sum_diagonal_blocks(dweights, bands)
  )


def activated(
  x: jax.Array, scale: jax.Array, offset: jax.Array, settings: Settings
) -> jax.Array:
  """Compute the gate's input in float32, `[h, w, n, bands * c]`."""
  scale, offset = (over_bands(v, settings.bands) for v in (scale, offset))
  return prologue(x, scale, offset, settings.activation, "HWNC")


def apply_gate(z: jax.Array, factor: jax.Array, bands: int) -> jax.Array:
  """Multiply `z` by the factor of each image and channel."""
  return z * over_bands(factor, bands)[None, None]
