"""Normalisation, activation and spatial mean in plain JAX.

There is no Pallas kernel: by libtpu's compiled code for v3, v5e and v6e, XLA
makes one pass of it, forward and backward, pooled or not, within 1.01 to 1.17
times the time of its HBM bytes for 64 images of 56x56x144, 28x28x240 and
14x14x672 in bfloat16. On 7x7x1152 it is 2 to 16 microseconds above it, which
are the latencies of the first and the last DMA and of the vectors; v3's
backward pass there, 16 to 20 of 68, is the one place with room.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..common.activation import Activation
from ..common.layout import Layout
from ..common.prologue import prologue, prologue_gradient
from ..common.recompute import recompute_from


class Settings(NamedTuple):
  """What of a call is known when it is traced."""

  activation: Activation
  pool: bool
  layout: Layout


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_norm(
  x: jax.Array,  # [h, w, n, c] or [h, w, c, n]
  scale: jax.Array,  # [c]
  offset: jax.Array,  # [c]
  settings: Settings,
):
  """See `podscale.kernels.batch_norm`."""
  y = prologue(x, scale, offset, settings.activation, settings.layout)
  if settings.pool:
    return y.astype(x.dtype), jnp.mean(y, axis=(0, 1))
  return y.astype(x.dtype)


def _forward(x, scale, offset, settings):
  return batch_norm(x, scale, offset, settings), (x, scale, offset)


def _backward(settings, residuals, cotangent):
  residuals, cotangent = recompute_from(residuals, cotangent)
  x, scale, offset = residuals
  if settings.pool:
    dy, dmean = cotangent
    dy = dy.astype(jnp.float32) + dmean[None, None] / (x.shape[0] * x.shape[1])
  else:
    dy = cotangent
  return prologue_gradient(
    dy, x, scale, offset, settings.activation, settings.layout
  )


batch_norm.defvjp(_forward, _backward)
