"""Scale, offset and moments that a call leaves out."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from podscale import kernels

SHAPE, FEATURES = (3, 4, 2, 4), {"narrow": 3, "wide": 8}


def draw(*shape):
  return jax.random.normal(jax.random.key(len(shape)), shape)


@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)
@pytest.mark.parametrize("layout", ["HWNC", "NHWC"])
@pytest.mark.parametrize(
  "op",
  [
    kernels.pointwise_conv_bn,
    lambda x, w, **o: kernels.gated_pointwise_conv_bn(x, w, None, None, **o),
  ],
  ids=["pointwise", "gated"],
)
def test_y_alone_is_the_y_beside_moments(op, layout, features):
  x, kernel = draw(*SHAPE), draw(4, features)

  def y_and_gradient(**options):
    def loss(x, kernel):
      y = op(x, kernel, layout=layout, **options)
      y = y if options else y[0]
      return jnp.sum(jnp.sin(y)), y

    return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(x, kernel)

  alone, beside = y_and_gradient(moments=False), y_and_gradient()
  # Sums of at most 24 terms below 10, in another order.
  for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(beside), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=240 * 2.0**-24)


@pytest.mark.parametrize("given", ["scale", "offset", "neither"])
@pytest.mark.parametrize(
  "op",
  [
    lambda x, *affine: kernels.batch_norm(x, *affine, activation="relu6"),
    lambda x, *affine: kernels.gated_pointwise_conv_bn(
      x, jnp.ones((4, 3)), *affine, activation="relu6"
    ),
    lambda x, *affine: kernels.depthwise_conv_bn(
      x, jnp.ones((3, 3, 4)), *affine, activation="relu6"
    ),
  ],
  ids=["batch_norm", "gated", "depthwise"],
)
def test_none_stands_for_ones_and_zeros(op, given):
  x, vector = draw(*SHAPE), draw(4)
  scale = vector if given == "scale" else None
  offset = vector if given == "offset" else None
  full = (
    jnp.ones(4) if scale is None else scale,
    jnp.zeros(4) if offset is None else offset,
  )

  def value_and_gradient(scale, offset):
    def loss(x):
      return sum(
        jnp.sum(jnp.sin(y)) for y in jax.tree.leaves(op(x, scale, offset))
      )

    return jax.value_and_grad(loss)(x)

  (a, da), (b, db) = (
    value_and_gradient(scale, offset),
    value_and_gradient(*full),
  )
  # A factor of 1 and a term of 0 are exact; what remains is the order of sums,
  # of at most 100 terms for the loss and 36 products for a gradient.
  for actual, want, terms in ((a, b, 100), (da, db, 36)):
    allowed = terms * 2.0**-24 * np.abs(want).max()
    np.testing.assert_allclose(actual, want, rtol=0, atol=allowed)


@pytest.mark.parametrize("bands", [1, 3])
def test_a_scale_of_none_in_bands(bands):
  x = draw(3, 4, 2, 4)
  image = jnp.concatenate(jnp.split(x, bands, axis=0), axis=3)
  y = partial(kernels.batch_norm, activation="relu")(
    image, None, jnp.ones(4), bands=bands
  )
  np.testing.assert_array_equal(
    kernels.from_bands(y, bands) if bands > 1 else y, jax.nn.relu(x + 1)
  )
