"""Ops on images in NHWC: the results of HWNC, and no copy on a TPU."""

import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.libtpu_mark import NEEDS_LIBTPU

from podscale import kernels
from podscale.bench.estimated.static.compile import compiled, lowered_for

RNG = np.random.default_rng(0)
N, H, W, C, D = 3, 5, 4, 6, 8


def draw(*shape):
  return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def gate(params, mean):
  return jax.nn.sigmoid(params[None] * mean)


VECTORS = draw(C), draw(C)
OPS = {
  "depthwise_conv_bn": (
    partial(kernels.depthwise_conv_bn, activation="relu6", stride=2, padding=1),
    (draw(3, 3, C), *VECTORS),
  ),
  "depthwise_conv_bn alone": (
    partial(kernels.depthwise_conv_bn, moments=False),
    (draw(3, 3, C), *VECTORS),
  ),
  "batch_norm": (partial(kernels.batch_norm, activation="silu"), VECTORS),
  "batch_norm pooled": (partial(kernels.batch_norm, pool=True), VECTORS),
  "channel_moments": (kernels.channel_moments, ()),
  "expansion": (kernels.pointwise_conv_bn, (draw(C, D),)),
  "projection": (kernels.pointwise_conv_bn, (draw(C, 2),)),
  "gated_pointwise_conv_bn": (
    lambda x, *args, layout: kernels.gated_pointwise_conv_bn(
      x, *args[:3], gate, args[3], activation="silu", layout=layout
    ),
    (draw(C, D), *VECTORS, draw(C)),
  ),
}


def results_and_gradients(op, x, *args):
  results, vjp = jax.vjp(op, x, *args)
  return results, vjp(jax.tree.map(jnp.ones_like, results))


@pytest.mark.parametrize("name", OPS)
def test_results_are_those_of_hwnc(name):
  op, args = OPS[name]
  x = draw(N, H, W, C)
  images = jnp.transpose(x, (1, 2, 0, 3))
  given = results_and_gradients(partial(op, layout="NHWC"), x, *args)
  want = results_and_gradients(partial(op, layout="HWNC"), images, *args)
  pairs = zip(jax.tree.leaves(given), jax.tree.leaves(want), strict=True)
  for actual, expected in pairs:
    if expected.ndim == 4:
      expected = jnp.transpose(expected, (2, 0, 1, 3))
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
  ("op", "args"),
  [
    (kernels.depthwise_conv_bn, (draw(3, 3, C),)),
    (kernels.pointwise_conv_bn, (draw(C, D),)),
  ],
)
def test_describe_sees_the_images_in_their_place(op, args):
  x = jax.ShapeDtypeStruct((N, H, W, C), jnp.float32)
  kernels.describe(op, x, *args, layout="NHWC")
  with pytest.raises(ValueError, match="bands need layout HWNC"):
    kernels.describe(op, x, *args, layout="NHWC", bands=2)


def test_products_have_no_hwcn():
  with pytest.raises(
    ValueError, match="layout must be HWNC or NHWC, got 'HWCN'"
  ):
    kernels.pointwise_conv_bn(draw(1, 1, 1, C), draw(C, D), layout="HWCN")


def three_blocks(x, params):
  """Apply inverted bottlenecks in NHWC, and sum the result."""
  for expand, filters, project in params:
    y, moments = kernels.pointwise_conv_bn(x, expand, layout="NHWC")
    ones, zeros = jnp.ones(y.shape[3]), jnp.zeros(y.shape[3])
    affine = kernels.batch_norm_affine(moments, ones, zeros)
    y, moments = kernels.depthwise_conv_bn(
      y, filters, *affine, activation="relu6", padding=1, layout="NHWC"
    )
    affine = kernels.batch_norm_affine(moments, ones, zeros)
    y, moments = kernels.gated_pointwise_conv_bn(
      y, project, *affine, activation="relu6", layout="NHWC"
    )
    ones, zeros = jnp.ones(y.shape[3]), jnp.zeros(y.shape[3])
    affine = kernels.batch_norm_affine(moments, ones, zeros)
    x = x + kernels.batch_norm(y, *affine, layout="NHWC")
  return jnp.sum(x.astype(jnp.float32) ** 2)


class TestOnTpu:
  pytestmark = NEEDS_LIBTPU

  def test_no_copy_comes_of_it(self):
    n, size, narrow, wide = 64, 14, 64, 384
    shape = partial(jax.ShapeDtypeStruct, dtype=jnp.bfloat16)
    x = shape((n, size, size, narrow))
    block = shape((narrow, wide)), shape((3, 3, wide)), shape((wide, narrow))
    step = jax.value_and_grad(three_blocks, argnums=(0, 1))
    lowered = lowered_for(step, x, [block] * 3, chip="v5e", free_layouts=True)
    with compiled(lowered) as compilation:
      hlo = compilation.hlo
    assert hlo.count('"tpu_custom_call"') >= 6
    for dims, op in re.findall(r"\w+\[([\d,]+)\]\S* (copy|transpose)\(", hlo):
      assert math.prod(map(int, dims.split(","))) < math.prod(x.shape), op
