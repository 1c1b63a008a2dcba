"""The gradients in plain JAX."""

import jax
import jax.numpy as jnp
from jax import lax

from ..common.bands import over_bands, sum_bands
from ..common.pointwise_matmul import (
  block_diagonal,
  contract_pixels,
  pointwise_matmul,
  sum_diagonal_blocks,
)
from ..common.prologue import prologue, prologue_gradient
from ..common.recompute import recompute_from
from .settings import Gradients, Residuals, Settings

_F32 = jnp.float32


def gradients(
  settings: Settings, residuals: Residuals, dy: jax.Array
) -> Gradients:
  """The cotangents of all that is differentiated, given y's."""
  x, kernel, scale, offset, factor, gate_vjp = residuals
  bands = settings.bands
  z = activated(x, scale, offset, settings).astype(x.dtype)
  transposed = block_diagonal(kernel.T, bands)
  dgated = pointwise_matmul(dy, transposed)
  dfactor = (dgated.astype(_F32) * z.astype(_F32)).sum((0, 1))
  dfactor = sum_bands(dfactor, bands)
  dgate_params, dmean = gate_vjp(dfactor.astype(factor.dtype))
  dkernel = sum_diagonal_blocks(
    contract_pixels(gate(z, factor, bands), dy), bands
  )

  (x, dy), dmean = recompute_from((x, dy), dmean)
  # On TPUs the wide product once more is cheaper than writing and reading it: a
  # block of 56x56x64, 24 to 144 channels in four bands, on v5e 1,480 and 1,399.
  dgated = lax.platform_dependent(
    *(dgated, dy, transposed),
    tpu=lambda _, dy, transposed: jnp.matmul(dy, transposed),
    default=lambda dgated, *_: dgated,
  )
  dx, dscale, doffset = through_gate(
    settings, residuals._replace(x=x), dgated, dmean
  )
  return dx, dkernel.astype(kernel.dtype), dscale, doffset, dgate_params


def through_gate(
  settings: Settings, residuals: Residuals, dgated: jax.Array, dmean: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The cotangents of x, scale and offset.

  Args:
    settings: Of the call.
    residuals: Of the forward pass.
    dgated: Cotangent of what the product reads, `[h, w, n, c]`.
    dmean: Of the spatial mean, `[n, c]` of the image without bands.
  """
  x, _, scale, offset, factor, _ = residuals
  bands, (h, w, *_) = settings.bands, x.shape
  dz = gate(dgated.astype(_F32), factor.astype(_F32), bands)
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


def activated(
  x: jax.Array, scale: jax.Array, offset: jax.Array, settings: Settings
) -> jax.Array:
  """What the gate multiplies, in float32."""
  scale, offset = (over_bands(v, settings.bands) for v in (scale, offset))
  return prologue(x, scale, offset, settings.activation, "HWNC")


def gate(z: jax.Array, factor: jax.Array, bands: int) -> jax.Array:
  """`z` times the factor of each image and channel."""
  return z * over_bands(factor, bands)[None, None]
