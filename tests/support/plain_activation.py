"""Activations of JAX by the names of `podscale.kernels`."""

import math
from functools import partial

import jax


def _gelu_tanh(u):
  """Compute `jax.nn.gelu(u)`, whose own derivative cancels for large u."""
  inner = math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)
  return u * jax.nn.sigmoid(2 * inner)


_NAMES = {
  None: lambda u: u,
  "gelu": partial(jax.nn.gelu, approximate=False),
  "gelu_tanh": _gelu_tanh,
}


def activate(u, activation):
  """Apply JAX's own activation."""
  function = _NAMES.get(activation) or getattr(jax.nn, activation)
  return function(u)
