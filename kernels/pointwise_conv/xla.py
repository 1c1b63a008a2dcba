"""Large products of an expansion's backward pass in plain JAX."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..common.pointwise_matmul import add_pointwise_matmuls, contract_pixels


class Products(NamedTuple):
  """Products with `z`, which is x minus the mean of its middle row.

  Attributes:
    dx: `dy @ weights + z @ through`, float32 `[h, w, n, c]`.
    cross: `x' dy` summed over pixels and images, float32 `[c, d]`.
    gram: `z' z` summed likewise, float32 `[c, c]`.
    total: Sum of z over pixels and images, float32 `[c]`.
  """

  dx: jax.Array
  cross: jax.Array
  gram: jax.Array
  total: jax.Array


def products(
  x: jax.Array,
  dy: jax.Array,
  middle: jax.Array,
  weights: jax.Array,
  through: jax.Array,
) -> Products:
  """Compute the products that read x or dy.

  Args:
    x: Input, `[h, w, n, c]`.
    dy: Cotangent of the result, `[h, w, n, d]`.
    middle: Mean of x's middle row, `[c]` float32.
    weights: Transposed weights, `[d, c]`, of x's dtype.
    through: Matrix from z to dx, `[c, c]`, of x's dtype.
  """
  z = (x.astype(jnp.float32) - middle[None, None, None]).astype(x.dtype)
  return Products(
    dx=add_pointwise_matmuls((dy, weights), (z, through)),
    cross=contract_pixels(x, dy),
    gram=contract_pixels(z, z),
    total=z.astype(jnp.float32).sum((0, 1, 2)),
  )
