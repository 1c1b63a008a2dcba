"""Derivative of batch norm: it keeps x and recomputes the rest."""

from functools import partial

import jax

from ..common.recompute import recompute_from
from . import xla
from .settings import Settings


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalise(
  x: jax.Array,  # [h, w, n, c] or [h, w, c, n]
  scale: jax.Array,  # [c]
  offset: jax.Array,  # [c]
  settings: Settings,
):
  """Compute the results of `podscale.kernels.batch_norm`."""
  return xla.forward(x, scale, offset, settings)


def _forward(x, scale, offset, settings):
  return xla.forward(x, scale, offset, settings), (x, scale, offset)


def _backward(settings, residuals, cotangents):
  residuals, cotangents = recompute_from(residuals, cotangents)
  x, scale, offset = residuals
  return xla.backward(x, scale, offset, cotangents, settings)


normalise.defvjp(_forward, _backward)
