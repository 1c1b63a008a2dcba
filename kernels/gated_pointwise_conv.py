"""Squeeze-excite folded into the 1x1 convolution behind it.

Of the arrays of the input's size only the input is kept: what is normalised,
activated and gated is made again in the backward pass.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from .activation import Activation, check_activation
from .bands import over_bands, sum_bands
from .channel_moments import channel_moments
from .layout import check_image
from .manual_axes import match_varying
from .moments import Moments
from .pointwise_conv import check_kernel
from .products import block_diagonal, product, within_bands
from .prologue import prologue, prologue_gradient
from .recompute import recompute_from

_OP = "gated_pointwise_conv_bn"
_F32 = jnp.float32

Gate = Callable[[Any, jax.Array], jax.Array]
"""From parameters and the spatial mean, `[n, c]` float32, to `[n, c]`."""


class _Settings(NamedTuple):
  gate: Gate
  activation: Activation
  bands: int


def gated_pointwise_conv_bn(
  x: jax.Array,
  kernel: jax.Array,
  scale: jax.Array,
  offset: jax.Array,
  gate: Gate,
  gate_params: Any,
  *,
  activation: Activation = None,
  bands: int = 1,
) -> tuple[jax.Array, Moments]:
  """1x1 convolution, with batch norm, activation and gate on its way in.

  Equivalent to::

      z = activation(x * scale + offset)
      g = gate(gate_params, z.mean((0, 1)))
      y = (z.astype(x.dtype) * g) @ kernel
      return y, channel_moments(y)

  Args:
    x: `[h, w, n, c]`, floating.
    kernel: `[c, d]`, of x's dtype.
    scale: `[c]` float32, from `batch_norm_affine`.
    offset: `[c]` float32.
    gate: A function of `gate_params` and the spatial mean, float32 `[n, c]`, to
      a factor for each image and channel, `[n, c]` of x's dtype.
    gate_params: Arrays, in any structure.
    activation: 'silu', 'relu' or None.
    bands: Of the image, among x's channels, as `to_bands` lays them; y's are
      laid likewise.

  Returns:
    y, `[h, w, n, d]`, of x's dtype, and its `Moments`. For policies of
    `jax.checkpoint` y has the name of this function.

  Raises:
    ValueError: shapes, dtypes or settings that do not fit each other.

  Source: squeeze-excite is Hu et al. 2018.

  >>> import jax.numpy as jnp
  >>> x, ones = jnp.ones((2, 2, 1, 3)), jnp.ones(3)
  >>> gate = lambda half, mean: half * mean
  >>> y, _ = gated_pointwise_conv_bn(x, jnp.ones((3, 2)), ones, ones, gate, 0.5)
  >>> y.shape, y[0, 0, 0, 0].item()
  ((2, 2, 1, 2), 6.0)
  """
  check_image(_OP, x, "HWNC", bands, scale=scale, offset=offset)
  check_activation(_OP, activation)
  check_kernel(_OP, x, kernel, bands)
  leaves, structure = jax.tree.flatten(gate_params)
  x, kernel, scale, offset, *leaves = match_varying(
    x, kernel, scale, offset, *leaves
  )
  gate_params = jax.tree.unflatten(structure, leaves)
  settings = _Settings(gate, activation, bands)
  with jax.named_scope(_OP):
    y = _gated(x, kernel, scale, offset, gate_params, settings)
    return y, channel_moments(y, bands=bands)


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _gated(x, kernel, scale, offset, gate_params, settings) -> jax.Array:
  return _forward(x, kernel, scale, offset, gate_params, settings)[0]


def _forward(x, kernel, scale, offset, gate_params, settings):
  bands = settings.bands
  z = _activated(x, scale, offset, settings)
  mean = sum_bands(z.mean((0, 1)), bands) / bands
  factor, gate_vjp = jax.vjp(settings.gate, gate_params, mean)
  gated = _gate(z.astype(x.dtype), factor, bands)
  y = product(gated, block_diagonal(kernel, bands))
  y = checkpoint_name(y, _OP)
  return y, (x, kernel, scale, offset, factor, gate_vjp)


def _activated(x, scale, offset, settings):
  scale, offset = (over_bands(v, settings.bands) for v in (scale, offset))
  return prologue(x, scale, offset, settings.activation, "HWNC")


def _gate(z, factor, bands):
  return z * over_bands(factor, bands)[None, None]


def _backward(settings, residuals, dy):
  (x, kernel, scale, offset, factor, gate_vjp), dy = recompute_from(
    residuals, dy
  )
  bands, (h, w, *_) = settings.bands, x.shape
  z = _activated(x, scale, offset, settings).astype(x.dtype)
  transposed = block_diagonal(kernel.T, bands)
  dgated = product(dy, transposed)
  dfactor = (dgated.astype(_F32) * z.astype(_F32)).sum((0, 1))
  dfactor = sum_bands(dfactor, bands)
  dgate_params, dmean = gate_vjp(dfactor.astype(factor.dtype))
  dkernel = within_bands(_gate(z, factor, bands), dy, bands)

  (x, dy), dmean = recompute_from((x, dy), dmean)
  # On TPUs the wide product once more is cheaper than writing and reading it: a
  # block of 56x56x64, 24 to 144 channels in four bands, on v5e 1,480 and 1,399.
  dgated = lax.platform_dependent(
    *(dgated, dy, transposed),
    tpu=lambda _, dy, transposed: jnp.matmul(dy, transposed),
    default=lambda dgated, *_: dgated,
  )
  dz = _gate(dgated.astype(_F32), factor.astype(_F32), bands)
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
  dscale, doffset = (sum_bands(d, bands) for d in (dscale, doffset))
  return dx, dkernel.astype(kernel.dtype), dscale, doffset, dgate_params


_gated.defvjp(_forward, _backward)
