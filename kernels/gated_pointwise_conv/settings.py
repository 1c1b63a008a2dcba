"""Settings, residuals and gradients of the gated 1x1 convolution."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ..common.activation import Activation
from ..selection.selection import Selection

Gate = Callable[[Any, jax.Array], jax.Array]
"""Function of parameters and the mean, `[n, c]` float32, to `[n, c]`."""


class Settings(NamedTuple):
  """Static arguments of a call.

  Attributes:
    gate: Gate of the public op.
    activation: Activation of the public op.
    bands: Number of bands.
    selection: Implementations, with a `tpu.pixels.Plan` where the kernel runs.
  """

  gate: Gate
  activation: Activation
  bands: int
  selection: Selection


class Residuals(NamedTuple):
  """Values kept for the backward pass.

  Attributes:
    x: Input, `[h, w, n, c]`.
    weights: Weights of the convolution, `[c, d]`.
    scale: Scale of the prologue, `[c]` float32.
    offset: Offset of the prologue, `[c]` float32.
    factor: Result of the gate, `[n, c]`.
    gate_vjp: Function of the factor's cotangent to the cotangents of the gate's
      parameters and of the spatial mean.
  """

  x: jax.Array
  weights: jax.Array
  scale: jax.Array
  offset: jax.Array
  factor: jax.Array
  gate_vjp: Callable[[jax.Array], tuple[Any, jax.Array]]


class GateSums(NamedTuple):
  """Gradients that are sums over pixels and bands.

  Attributes:
    dfactor: Gradient of the factor, float32 `[n, c]`.
    dweights: Gradient of the weights, float32 `[c, d]`.
  """

  dfactor: jax.Array
  dweights: jax.Array


Gradients = tuple[jax.Array, jax.Array, jax.Array, jax.Array, Any]
"""Gradients of x, weights, scale, offset and the gate's parameters."""
