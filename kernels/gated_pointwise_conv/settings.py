"""What of a call is known when it is traced, and what its gradients need."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ..common.activation import Activation
from ..selection.by_platform import Forms

Gate = Callable[[Any, jax.Array], jax.Array]
"""From parameters and the spatial mean, `[n, c]` float32, to `[n, c]`."""


class Settings(NamedTuple):
  """The settings of `podscale.kernels.gated_pointwise_conv_bn`."""

  gate: Gate
  activation: Activation
  bands: int
  forms: Forms


class Residuals(NamedTuple):
  """What is kept for the backward pass.

  Attributes:
    x: The input, `[h, w, n, c]`.
    kernel: `[c, d]`.
    scale: Of the prologue.
    offset: Of the prologue.
    factor: The gate, `[n, c]`.
    gate_vjp: From its cotangent to those of its parameters and the mean.
  """

  x: jax.Array
  kernel: jax.Array
  scale: jax.Array
  offset: jax.Array
  factor: jax.Array
  gate_vjp: Callable[[jax.Array], tuple[Any, jax.Array]]


Gradients = tuple[jax.Array, jax.Array, jax.Array, jax.Array, Any]
"""Of x, kernel, scale, offset and the gate's parameters."""
