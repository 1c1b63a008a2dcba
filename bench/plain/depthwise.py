"""The fused depthwise layer in plain JAX, to compare with.

Both passes of `kernels.depthwise_conv_bn` with silu, in layout HWNC.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax


def plain_depthwise(x, filters, scale, offset, stride):
  """Compute what `depthwise_conv_bn` with silu computes.

  Args:
    x: Images, `[h, w, n, c]`.
    filters: Filters, `[kh, kw, c]`.
    scale: Scale of the batch norm before, `[c]` float32.
    offset: Offset of the batch norm before, `[c]` float32.
    stride: Stride in both directions.

  Returns:
    The convolution, its channel means, and sums of squared deviations.
  """
  y = plain_convolution(x, filters, scale, offset, stride)
  return y, *plain_moments(y)


def plain_convolution(x, filters, scale, offset, stride):
  """Compute the part of `plain_depthwise` without the moments."""
  z = jax.nn.silu(
    x.astype(jnp.float32) * scale[None, None, None] + offset[None, None, None]
  )
  return lax.conv_general_dilated(
    z.astype(x.dtype),
    filters[:, :, None],
    (stride, stride),
    "SAME",
    feature_group_count=x.shape[3],
    dimension_numbers=("HWNC", "HWIO", "HWNC"),
    preferred_element_type=jnp.float32,
  ).astype(x.dtype)


def plain_moments(y):
  """Compute the mean and the sum of squared deviations of each channel.

  Uses E[y^2] - E[y]^2 like TensorFlow's fused batch norm: one pass over y.
  """
  values = y.astype(jnp.float32)
  count = y.size // y.shape[3]
  mean = values.mean((0, 1, 2))
  squares = jnp.square(values).sum((0, 1, 2))
  return mean, squares - count * mean * mean


def plain_backward(y, x, filters, scale, offset, dy, dmean, dm2, stride):
  """Compute the gradients of `plain_depthwise`, given its result y."""
  _, of_moments = jax.vjp(plain_moments, y)
  (through_moments,) = of_moments((dmean, dm2))
  convolution = partial(plain_convolution, stride=stride)
  _, of_convolution = jax.vjp(convolution, x, filters, scale, offset)
  return of_convolution(dy + through_moments)
