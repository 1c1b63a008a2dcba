"""Several results of a channel, and the bias of a result."""

import jax
import jax.numpy as jnp

from ..batch_norm.settings import Settings as AffineSettings
from ..batch_norm.vjp import normalise
from ..common.bands import over_bands
from ..common.layout import Layout, channel_axis
from ..common.manual_axes import match_varying
from ..common.moments import Moments


def repeat_channels(
  x: jax.Array,
  filters: jax.Array,
  scale: jax.Array | None,
  offset: jax.Array | None,
  layout: Layout,
) -> tuple[jax.Array, jax.Array, jax.Array | None, jax.Array | None]:
  """Repeat each channel for its m filters, `[kh, kw, c, m]`.

  Returns:
    The arguments with c * m channels, and filters `[kh, kw, c * m]`; the same
    arguments for filters `[kh, kw, c]`.
  """
  if filters.ndim == 3:
    return x, filters, scale, offset
  height, width, channels, multiplier = filters.shape
  x = jnp.repeat(x, multiplier, axis=channel_axis(layout))
  filters = filters.reshape(height, width, channels * multiplier)
  scale, offset = (
    None if v is None else jnp.repeat(v, multiplier) for v in (scale, offset)
  )
  return x, filters, scale, offset


def add_bias(
  y: jax.Array,
  moments: Moments | None,
  bias: jax.Array,
  layout: Layout,
  bands: int,
) -> tuple[jax.Array, Moments | None]:
  """Add a bias to each channel of y and to its mean.

  On TPUs the op that reads y adds it.
  """
  ones = jnp.ones(bias.size * bands, jnp.float32)
  settings = AffineSettings(None, False, layout)
  affine = match_varying(y, ones, over_bands(bias, bands))
  y = normalise(*affine, settings)
  if moments is not None:
    moments = moments._replace(mean=moments.mean + bias)
  return y, moments
