"""Matmuls of 1x1 convolutions, `[h, w, n, c]`, with or without bands.

XLA:CPU needs x reshaped to a matrix, or it transposes copies for the gradients.
XLA:TPU must not reshape x, or it loses the layout that suits narrow arrays: a
block of 114x114x32 with 40 channels takes 26.3 instead of 18.8 ms on v3
(bench/results/step.md).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

_F32 = jnp.float32


def block_diagonal(weight: jax.Array, bands: int) -> jax.Array:
  """Repeat a weight on the diagonal, so that a matmul applies it to each band.

  Args:
    weight: Weight of the image, `[..., c, d]`.
    bands: Number of bands.

  Returns:
    Weight of the banded image, `[..., bands * c, bands * d]`.
  """
  if bands == 1:
    return weight
  *window, c, d = weight.shape
  eye = jnp.eye(bands, dtype=weight.dtype)
  blocks = jnp.einsum("ij,...cd->...icjd", eye, weight)
  return blocks.reshape(*window, bands * c, bands * d)


@jax.custom_vjp
def pointwise_matmul(x: jax.Array, weight: jax.Array) -> jax.Array:
  """Compute `x @ weight`, `[h, w, n, c]` times `[c, d]`."""
  return _pointwise_matmul(x, weight)


def _pointwise_matmul(x, weight, dtype=None):
  def flat(x, weight):
    y = jnp.dot(as_matrix(x), weight, preferred_element_type=dtype)
    return y.reshape(*x.shape[:-1], -1)

  return lax.platform_dependent(
    x,
    weight,
    cpu=flat,
    default=partial(jnp.matmul, preferred_element_type=dtype),
  )


def _backward(operands, dy):
  x, weight = operands
  dweight = contract_pixels(x, dy).astype(weight.dtype)
  return _pointwise_matmul(dy, weight.T), dweight


pointwise_matmul.defvjp(
  lambda x, weight: (_pointwise_matmul(x, weight), (x, weight)), _backward
)


def add_pointwise_matmuls(
  one: tuple[jax.Array, jax.Array], other: tuple[jax.Array, jax.Array]
) -> jax.Array:
  """Compute `x @ weight` of two pairs, and add them in float32."""

  def beside(a, b, c, d):
    # XLA:TPU would write the first of two matmuls to memory; one matmul over
    # the concatenated channels avoids it.
    both = jnp.concatenate([a, c], 3), jnp.concatenate([b, d], 0)
    return jnp.matmul(*both, preferred_element_type=_F32)

  def added(a, b, c, d):
    return _pointwise_matmul(a, b, _F32) + _pointwise_matmul(c, d, _F32)

  return lax.platform_dependent(*one, *other, cpu=added, default=beside)


def sum_diagonal_blocks(products: jax.Array, bands: int) -> jax.Array:
  """Sum the diagonal blocks: `[bands * c, bands * d]` to `[c, d]`."""
  if bands == 1:
    return products
  rows, columns = (size // bands for size in products.shape)
  blocks = products.reshape(bands, rows, bands, columns)
  return jnp.einsum("icid->cd", blocks)


def contract_pixels(a: jax.Array, b: jax.Array) -> jax.Array:
  """Sum `a' b` over pixels and images, float32 `[c, d]`."""
  return lax.platform_dependent(
    a,
    b,
    cpu=lambda a, b: jnp.dot(
      as_matrix(a).T, as_matrix(b), preferred_element_type=_F32
    ),
    default=partial(jnp.einsum, "hwnc,hwnd->cd", preferred_element_type=_F32),
  )


def as_matrix(x: jax.Array) -> jax.Array:
  """Reshape to a matrix with the channels in its rows."""
  return x.reshape(-1, x.shape[-1])
