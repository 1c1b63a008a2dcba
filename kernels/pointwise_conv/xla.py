"""The large products of an expansion's backward pass in plain JAX."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..common.pointwise_matmul import add_pointwise_matmuls, contract_pixels

Constant = Callable[[jax.Array], jax.Array]
Products = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def products(
  constant: Constant,
  x: jax.Array,
  dy: jax.Array,
  middle: jax.Array,
  kernel: jax.Array,
  through: jax.Array,
) -> Products:
  """With `z = x - middle` in x's dtype: dx, `x' dy`, `z' z`, and z's sum.

  Args:
    constant: Makes of z's sum `[c]` what is added to dx, `[c]`.
    x: `[h, w, n, c]`.
    dy: `[h, w, n, d]`.
    middle: `[c]` float32.
    kernel: `[d, c]`, of x's dtype.
    through: `[c, c]`, of x's dtype.

  Returns:
    `dy @ kernel + z @ through` and the constant, in x's dtype; the others in
    float32, summed over pixels and images: `[c, d]`, `[c, c]`, `[c]`.
  """
  z = (x.astype(jnp.float32) - middle[None, None, None]).astype(x.dtype)
  total = z.astype(jnp.float32).sum((0, 1, 2))
  dx = add_pointwise_matmuls((dy, kernel), (z, through))
  dx = dx + constant(total)[None, None, None]
  return (
    dx.astype(x.dtype),
    contract_pixels(x, dy),
    contract_pixels(z, z),
    total,
  )
