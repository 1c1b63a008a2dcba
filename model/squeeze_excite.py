"""Squeeze-excite: a factor for each image and channel."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from ..kernels import Activation
from ..kernels.surface import activate
from .initial_weights import draw_weights

Gate = Literal["sigmoid", "hard_sigmoid"]


class Dense(nnx.Module):
  """Dense layer with float32 results."""

  def __init__(self, kernel: jax.Array):
    self.kernel = nnx.Param(kernel)
    self.bias = nnx.Param(jnp.zeros(kernel.shape[1], jnp.float32))

  def __call__(self, x: jax.Array) -> jax.Array:
    """Compute `x @ kernel + bias`, with the kernel cast to x's dtype."""
    kernel = self.kernel[...].astype(x.dtype)
    y = jnp.dot(x, kernel, preferred_element_type=jnp.float32)
    return y + self.bias[...][None]


class SqueezeExcite(nnx.Module):
  """Squeeze-excite gate per image and channel, from the spatial means.

  Pass it to `PointwiseConvBN`, which computes the means and applies the gate.

  Args:
    features: Number of channels.
    squeezed: Number of channels between the two dense layers.
    activation: Activation between them.
    gate: 'sigmoid', or 'hard_sigmoid' as in MobileNetV3.
    rngs: Random numbers for the initial weights.

  Raises:
    ValueError: There is no such gate.

  Source: Hu et al. 2018, arXiv:1709.01507, section 3.

  >>> layer = SqueezeExcite(8, 2, rngs=nnx.Rngs(0))
  >>> layer(jnp.ones((4, 8)), jnp.bfloat16).shape
  (4, 8)
  """

  def __init__(
    self,
    features: int,
    squeezed: int,
    *,
    activation: Activation = "silu",
    gate: Gate = "sigmoid",
    rngs: nnx.Rngs,
  ):
    if gate not in ("sigmoid", "hard_sigmoid"):
      raise ValueError(
        f"gate must be 'sigmoid' or 'hard_sigmoid', got {gate!r}"
      )

    def init(n_in, n_out):
      return Dense(draw_weights(rngs.params(), (n_in, n_out), n_out))

    self.reduce = init(features, squeezed)
    self.expand = init(squeezed, features)
    self.activation, self.gate = activation, gate

  def __call__(self, pooled: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Compute the gate `[n, c]` in `dtype` from the float32 means `[n, c]`."""
    hidden = activate(self.reduce(pooled.astype(dtype)), self.activation)
    gate = getattr(jax.nn, self.gate)
    return gate(self.expand(hidden.astype(dtype))).astype(dtype)
