"""Several results of a channel, and the bias of a result."""

from functools import partial

import jax
import jax.numpy as jnp

from ..common.bands import over_bands
from ..common.channel_sums import channel_sums
from ..common.layout import Layout, channel_axis
from ..common.manual_axes import match_varying
from ..common.moments import Moments
from ..common.prologue import prologue


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
  y = _add(*match_varying(y, over_bands(bias, bands)), layout)
  if moments is not None:
    moments = moments._replace(mean=moments.mean + bias)
  return y, moments


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _add(y: jax.Array, bias: jax.Array, layout: Layout) -> jax.Array:
  return prologue(y, None, bias, None, layout).astype(y.dtype)


def _forward(y, bias, layout):
  return _add(y, bias, layout), None


def _backward(layout, residuals, dy):
  del residuals
  (dbias,) = channel_sums(
    lambda dy: (dy.astype(jnp.float32),), dy, layout=layout
  )
  return dy, dbias


_add.defvjp(_forward, _backward)
