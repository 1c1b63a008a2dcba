"""Normalisation, activation and spatial mean in plain JAX.

There is no Pallas kernel, because XLA makes one pass over HBM, forward and
backward, pooled or not. In libtpu's compiled code for v3, v5e and v6e it takes
1.01 to 1.17 times as long as its HBM bytes for 64 images of 56x56x144,
28x28x240 and 14x14x672 in bfloat16. On 7x7x1152 it takes 2 to 16 microseconds
longer than its bytes: the latencies of the first and the last DMA and of the
vectors. Only v3's backward pass there leaves room, 16 to 20 of 68 microseconds.
"""

import jax
import jax.numpy as jnp

from ..common.prologue import prologue, prologue_gradient
from .settings import Settings


def forward(
  x: jax.Array,  # [h, w, n, c] or [h, w, c, n]
  scale: jax.Array,  # [c]
  offset: jax.Array,  # [c]
  settings: Settings,
):
  """Compute the results of `podscale.kernels.batch_norm`."""
  y = prologue(x, scale, offset, settings.activation, settings.layout)
  if settings.pool:
    return y.astype(x.dtype), jnp.mean(y, axis=(0, 1))
  return y.astype(x.dtype)


def backward(
  x: jax.Array,  # [h, w, n, c] or [h, w, c, n]
  scale: jax.Array,  # [c]
  offset: jax.Array,  # [c]
  cotangents,  # of the results of `forward`
  settings: Settings,
):
  """Compute the cotangents of x, scale and offset."""
  if settings.pool:
    dy, dmean = cotangents
    dy = dy.astype(jnp.float32) + dmean[None, None] / (x.shape[0] * x.shape[1])
  else:
    dy = cotangents
  return prologue_gradient(
    dy, x, scale, offset, settings.activation, settings.layout
  )
