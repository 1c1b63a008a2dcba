"""Several results of a channel, and the bias of a result, against `lax`."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from support.tolerance import assert_accurate

from podscale.kernels import depthwise_conv_bn, describe, from_bands, to_bands

N, H, W, C, M = 3, 5, 4, 3, 2


def draw(*shape):
  rng = np.random.default_rng(len(shape))
  return np.float32(rng.normal(size=shape))


def plain(x, filters, scale, offset, bias):
  z = jnp.maximum(x * scale[None, None, None] + offset[None, None, None], 0)
  kernel = filters.reshape(3, 3, 1, -1)
  y = lax.conv_general_dilated(
    *(z, kernel, (1, 1), "SAME"),
    feature_group_count=C,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  y = y + bias[None, None, None]
  mean = y.mean((0, 1, 2))
  return y, mean, jnp.square(y - mean[None, None, None]).sum((0, 1, 2))


def fused(x, filters, scale, offset, bias):
  y, moments = depthwise_conv_bn(
    *(x, filters, scale, offset), bias=bias, activation="relu", layout="NHWC"
  )
  return y, moments.mean, moments.m2


def everything(op, x, filters, scale, offset, bias):
  def loss(args):
    results = op(*args)
    return sum(jnp.sum(jnp.sin(r)) for r in results), results

  args = x, filters, scale, offset, bias
  gradients, results = jax.grad(loss, has_aux=True)(args)
  names = "y", "mean", "m2", "dx", "dfilters", "dscale", "doffset", "dbias"
  return dict(zip(names, (*results, *gradients), strict=True))


@pytest.mark.parametrize("multiplier", [None, 1, M])
def test_values_and_gradients_are_those_of_lax(multiplier):
  many = () if multiplier is None else (multiplier,)
  args = (
    *(draw(N, H, W, C), draw(3, 3, C, *many), draw(C), draw(C) + 1),
    draw(C * (multiplier or 1)),
  )

  def exact(*args):
    with jax.enable_x64(True):
      outcome = everything(plain, *map(np.float64, args))
      return jax.tree.map(np.asarray, outcome)

  both = (
    jax.jit(lambda *a, op=op: everything(op, *a)) for op in (fused, plain)
  )
  ours, theirs = (run(*args) for run in both)
  assert_accurate(ours, theirs, exact, *args)


def test_results_of_a_channel_are_side_by_side():
  filters = jnp.zeros((1, 1, 2, 2)).at[0, 0].set(jnp.array([[1.0, 2], [3, 4]]))
  y, moments = depthwise_conv_bn(jnp.ones((1, 1, 1, 2)), filters)
  assert y.ravel().tolist() == moments.mean.tolist() == [1, 2, 3, 4]
  x = jax.ShapeDtypeStruct((1, 1, 1, 2), jnp.float32)
  assert describe(depthwise_conv_bn, x, filters).implementation == "xla"


@pytest.mark.parametrize("moments", [True, False])
def test_bias_in_bands(moments):
  x, filters, bias = draw(4, 4, 2, C), draw(3, 3, C), draw(C)
  options = dict(bias=bias, moments=moments)
  whole = depthwise_conv_bn(x, filters, **options)
  bands = depthwise_conv_bn(to_bands(x, 2), filters, bands=2, **options)
  if moments:
    (whole, m), (bands, n) = whole, bands
    np.testing.assert_array_equal(m.mean, n.mean)
  np.testing.assert_array_equal(from_bands(bands, 2), whole)


@pytest.mark.parametrize(
  ("filters", "options", "message"),
  [
    ((3, 3, 3), {"bias": draw(2)}, "bias must be float32 (3,) for x of shape "),
    ((3, 3, 3, 2), {"bias": draw(3)}, "float32 (6,) for x of shape (4, 4, 2,"),
    (
      (3, 3, 3),
      {"bias": draw(3).astype(np.int32)},
      "and filters (3, 3, 3), got int32 (3,)",
    ),
    (
      (3, 3, 3, 2),
      {"bands": 1, "layout": "HWCN"},
      "(kh, kw, 2) or (kh, kw, 2, m) for x of shape (4, 4, 2, 3) in HWCN",
    ),
  ],
)
def test_mistakes_are_named(filters, options, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    depthwise_conv_bn(draw(4, 4, 2, 3), jnp.ones(filters), **options)


def test_bands_take_one_result_of_a_channel():
  with pytest.raises(ValueError, match=r"bands need filters \(kh, kw, 3\)"):
    depthwise_conv_bn(draw(4, 4, 2, 6), jnp.ones((3, 3, 3, 2)), bands=2)
