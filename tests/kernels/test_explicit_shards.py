"""Ops on a batch that is split over an explicit mesh: results of one device."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from podscale import kernels

RNG = np.random.default_rng(0)
N, H, W, C, D = 8, 5, 4, 3, 7


def draw(*shape):
  return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def gate(params, mean):
  return jax.nn.sigmoid(params[None] * mean)


VECTORS = draw(C), draw(C)
OPS = {
  "depthwise_conv_bn": (
    lambda x, f, s, o, b, layout: kernels.depthwise_conv_bn(
      *(x, f, s, o), bias=b, activation="silu", stride=2, layout=layout
    ),
    (draw(3, 3, C), *VECTORS, draw(C)),
  ),
  "depthwise_conv_bn alone": (
    lambda x, f, layout: kernels.depthwise_conv_bn(
      x, f, moments=False, layout=layout
    ),
    (draw(3, 3, C, 2),),
  ),
  "batch_norm": (
    lambda x, *v, layout: kernels.batch_norm(
      x, *v, activation="silu", pool=True, layout=layout
    ),
    VECTORS,
  ),
  "channel_moments": (
    lambda x, p, layout: kernels.channel_moments(x, pivot=p, layout=layout),
    (VECTORS[0],),
  ),
  "expansion": (kernels.pointwise_conv_bn, (draw(C, D),)),
  "projection": (kernels.pointwise_conv_bn, (draw(C, 2),)),
  "gated_pointwise_conv_bn": (
    lambda x, *args, layout: kernels.gated_pointwise_conv_bn(
      x, *args[:3], gate, args[3], activation="silu", layout=layout
    ),
    (draw(C, D), *VECTORS, draw(C)),
  ),
}
MESHES = {
  "one axis": ((8,), ("data",), ("data",)),
  "of two": ((4, 2), ("data", "model"), ("data",)),
  "both": ((4, 2), ("data", "model"), ("data", "model")),
}


def results_and_gradients(op, layout, x, *args):
  def loss(x, *args):
    results = op(x, *args, layout=layout)
    # Below 1, so that the sine does not enlarge the rounding of m2.
    terms = (jnp.sum(jnp.sin(1e-3 * r)) for r in jax.tree.leaves(results))
    return 100 * sum(terms), results

  argnums = tuple(range(1 + len(args)))
  return jax.grad(loss, argnums, has_aux=True)(x, *args)


@pytest.mark.parametrize("layout", ["HWNC", "NHWC"])
@pytest.mark.parametrize("mesh", MESHES.values(), ids=MESHES)
@pytest.mark.parametrize("name", OPS)
def test_results_are_those_of_one_device(name, mesh, layout):
  op, args = OPS[name]
  *sizes, split = mesh
  x = draw(*(dict(N=N, H=H, W=W, C=C)[axis] for axis in layout))
  run = jax.jit(results_and_gradients, static_argnums=(0, 1))
  want = run(op, layout, x, *args)
  spec = P(*(split if axis == "N" else None for axis in layout))
  mesh = jax.make_mesh(*sizes)
  with jax.set_mesh(mesh):
    split_x = jax.device_put(x, NamedSharding(mesh, spec))
    actual = run(op, layout, split_x, *args)
    gradients, results = actual
    assert jax.typeof(gradients[0]).sharding.spec == spec
    images = [r for r in jax.tree.leaves(results) if np.ndim(r) == 4]
    assert all(jax.typeof(y).sharding.spec == spec for y in images)
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(want), strict=True):
    # Sums of at most 160 terms, in another order, here and on the way back.
    allowed = 2 * 160 * 2.0**-24 * np.abs(b).max()
    np.testing.assert_allclose(a, b, rtol=0, atol=allowed)


def test_a_split_of_other_axes_is_named():
  mesh = jax.make_mesh((2,), ("model",))
  with jax.set_mesh(mesh):
    x = jax.device_put(
      jnp.ones((5, 4, 8, 4)), NamedSharding(mesh, P(None, None, None, "model"))
    )
    message = "x of shape (5, 4, 8, 4) in HWNC is split along c"
    with pytest.raises(ValueError, match=re.escape(message)):
      kernels.channel_moments(x)
