"""The op with its gradients.

Of the arrays of the input's size only the input is kept: what is normalised,
activated and gated is made again in the backward pass.
"""

from collections.abc import Callable, Mapping
from functools import partial

import jax
from jax.ad_checkpoint import checkpoint_name

from ..common.bands import sum_bands
from ..common.pointwise_matmul import block_diagonal, pointwise_matmul
from ..common.recompute import recompute_from
from ..selection.by_platform import run
from ..selection.dispatch import Implementation
from . import tpu as pallas_tpu
from . import xla
from .settings import Gradients, Residuals, Settings

OP = "gated_pointwise_conv_bn"

_GRADIENTS: Mapping[Implementation, Callable[..., Gradients]] = {
  "xla": xla.gradients,
  "pallas_tpu": pallas_tpu.gradients,
}


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def gated(x, kernel, scale, offset, gate_params, settings) -> jax.Array:
  """The convolution; see `podscale.kernels.gated_pointwise_conv_bn`."""
  return _forward(x, kernel, scale, offset, gate_params, settings)[0]


def _forward(x, kernel, scale, offset, gate_params, settings: Settings):
  bands = settings.bands
  z = xla.activated(x, scale, offset, settings)
  mean = sum_bands(z.mean((0, 1)), bands) / bands
  factor, gate_vjp = jax.vjp(settings.gate, gate_params, mean)
  y = pointwise_matmul(
    xla.gate(z.astype(x.dtype), factor, bands), block_diagonal(kernel, bands)
  )
  residuals = Residuals(x, kernel, scale, offset, factor, gate_vjp)
  return checkpoint_name(y, OP), residuals


def _backward(settings: Settings, residuals: Residuals, dy) -> Gradients:
  residuals, dy = recompute_from(residuals, dy)
  return run(settings.forms, _GRADIENTS, settings, residuals, dy)


gated.defvjp(_forward, _backward)
