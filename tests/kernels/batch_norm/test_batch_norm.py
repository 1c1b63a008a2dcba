import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P
from support import oracle
from support.plain_activation import activate
from support.tolerance import assert_accurate

from podscale.collectives import (
  ALL_DEVICES,
  group_mesh,
  group_moments,
)
from podscale.kernels import (
  Moments,
  batch_norm,
  batch_norm_affine,
  channel_moments,
  depthwise_conv_bn,
)

F32, BF16 = jnp.float32, jnp.bfloat16


def draw(shape, dtype):
  """Draw x, scale, offset and the cotangents of y and of its mean, in HWNC."""
  rng = np.random.default_rng(shape)
  h, w, n, c = shape
  x, dy = jnp.asarray(rng.normal(size=(2, *shape)), dtype)
  scale = jnp.asarray(rng.uniform(0.5, 2, c), F32)
  offset = jnp.asarray(rng.normal(size=c), F32)
  dmean = jnp.asarray(h * w * rng.normal(size=(n, c)), F32)
  return x, scale, offset, dy, dmean


def plain(x, scale, offset, *, activation):
  y = x.astype(F32) * scale[None, None, None] + offset[None, None, None]
  y = activate(y, activation)
  return y.astype(x.dtype), jnp.mean(y, axis=(0, 1))


def in_layout(layout, x):
  return jnp.swapaxes(x, -2, -1) if layout == "HWCN" else x


def everything(op, layout, x, scale, offset, dy, dmean):
  """Compute results and gradients of `op` by name, from and to HWNC."""
  swap = partial(in_layout, layout)
  (y, mean), vjp = jax.vjp(op, swap(x), scale, offset)
  dx, dscale, doffset = vjp((swap(dy), swap(dmean)))
  return {
    "y": swap(y),
    "mean": swap(mean),
    "dx": swap(dx),
    "dscale": dscale,
    "doffset": doffset,
  }


def exact(x, scale, offset, dy, dmean, *, activation):
  gradients = oracle.batch_norm_gradients(
    x, scale, offset, dy, dmean, activation=activation
  )
  values = oracle.batch_norm(x, scale, offset, activation=activation)
  return values | gradients


def check(shape, layout, dtype, activation):
  inputs = draw(shape, dtype)
  op = partial(batch_norm, activation=activation, layout=layout, pool=True)
  actual = jax.jit(partial(everything, op, layout))(*inputs)
  reference = partial(plain, activation=activation)
  assert_accurate(
    actual,
    jax.jit(partial(everything, reference, "HWNC"))(*inputs),
    partial(exact, activation=activation),
    *inputs,
  )
  dtypes = {name: array.dtype for name, array in actual.items()}
  assert dtypes == {
    "y": dtype,
    "mean": F32,
    "dx": dtype,
    "dscale": F32,
    "doffset": F32,
  }


# bfloat16 goes without relu: the rounding of x would decide on which side of 0
# a value is, and the tolerance has no term for that.
@pytest.mark.parametrize(
  "shape, layout, dtype, activation",
  [
    ((3, 4, 2, 5), "HWNC", "float32", None),
    ((5, 2, 17, 3), "HWNC", "float32", "silu"),
    ((1, 1, 33, 1), "HWCN", "float32", "relu"),
    ((2, 3, 7, 130), "HWCN", "bfloat16", "silu"),
    ((2, 3, 4, 5), "HWNC", "float32", "relu6"),
    ((2, 3, 4, 5), "HWCN", "float32", "hard_swish"),
    ((2, 3, 4, 5), "HWNC", "bfloat16", "gelu"),
    ((5, 2, 3, 2), "HWNC", "float32", "gelu_tanh"),
    ((1, 1, 1, 1), "HWNC", "bfloat16", None),
  ],
)
def test_values_and_gradients(shape, layout, dtype, activation):
  check(shape, layout, dtype, activation)


@settings(max_examples=4, deadline=None, derandomize=True, database=None)
@given(
  shape=st.tuples(*[st.integers(1, 5)] * 2, st.integers(1, 40), st.just(3)),
  layout=st.sampled_from(["HWNC", "HWCN"]),
)
def test_any_small_shape(shape, layout):
  check(shape, layout, "float32", "silu")


def test_pooling_does_not_change_y():
  x, scale, offset, dy, _ = draw((3, 2, 2, 3), F32)

  def run(pool):
    def op(*args):
      result = batch_norm(*args, activation="silu", pool=pool)
      return result[0] if pool else result

    y, vjp = jax.vjp(op, x, scale, offset)
    return y, *vjp(dy)

  jax.tree.map(np.testing.assert_array_equal, run(False), run(True))


def test_the_spatial_mean_is_taken_before_rounding():
  x, scale, offset, *_ = draw((3, 4, 2, 3), BF16)
  op = partial(batch_norm, activation="silu", pool=True)
  _, mean = op(x, scale, offset)
  _, want = op(x.astype(F32), scale, offset)
  # The float32 arithmetic is the same, except for the order of 12 additions.
  np.testing.assert_allclose(mean, want, rtol=0, atol=12 * 2.0**-24 * 4)


def test_only_x_is_kept_for_the_backward_pass():
  x, scale, offset, *_ = draw((3, 2, 2, 3), BF16)
  op = partial(batch_norm, activation="silu", pool=True)
  _, vjp = jax.eval_shape(partial(jax.vjp, op), x, scale, offset)
  kept = [leaf for leaf in jax.tree.leaves(vjp) if leaf.size > 3]
  assert [(k.shape, k.dtype) for k in kept] == [(x.shape, BF16)]


def plain_affine(mean, m2, gamma, beta, *, count, epsilon):
  scale = gamma / jnp.sqrt(m2 / count + epsilon)
  return scale, beta - mean * scale


def affine(mean, m2, gamma, beta, *, count, epsilon):
  moments = Moments(jnp.float32(count), mean, m2)
  return batch_norm_affine(moments, gamma, beta, epsilon=epsilon)


@pytest.mark.parametrize("epsilon", [0.0, 1e-3])
def test_affine_values_and_gradients(epsilon):
  rng = np.random.default_rng(0)
  kwargs = {"count": 7, "epsilon": epsilon}
  mean, gamma, beta, dscale, doffset = jnp.asarray(rng.normal(size=(5, 9)), F32)
  m2 = jnp.asarray(10.0 ** rng.uniform(-4, 4, 9), F32)

  def everything(op, *inputs):
    *inputs, dscale, doffset = inputs
    results, vjp = jax.vjp(partial(op, **kwargs), *inputs)
    names = ["scale", "offset", "dmean", "dm2", "dgamma", "dbeta"]
    gradients = vjp((dscale, doffset))
    return dict(zip(names, [*results, *gradients], strict=True))

  def exact(mean, m2, gamma, beta, dscale, doffset):
    args = kwargs["count"], mean, m2, gamma, beta
    return oracle.batch_norm_affine(
      *args, epsilon=epsilon
    ) | oracle.batch_norm_affine_gradients(
      *args, dscale, doffset, epsilon=epsilon
    )

  inputs = mean, m2, gamma, beta, dscale, doffset
  assert_accurate(
    everything(affine, *inputs),
    everything(plain_affine, *inputs),
    exact,
    *inputs,
  )


def test_a_constant_channel_is_divided_by_epsilon():
  moments = channel_moments(jnp.full((2, 2, 2, 1), 3.0))
  scale, offset = batch_norm_affine(
    moments, jnp.ones(1), jnp.full(1, 0.5), epsilon=2.0**-10
  )
  assert (scale.item(), offset.item()) == (32.0, 0.5 - 3 * 32)


def normalised_block(op, merge, x, filters, gamma, beta):
  """Convolve, compute the batch norm and apply it."""
  y, moments = op(x, filters)
  scale, offset = batch_norm_affine(merge(moments), gamma, beta)
  return batch_norm(y, scale, offset, activation="silu")


def block_gradients(merge, x, filters, gamma, beta, weights):
  def loss(x, filters, gamma, beta):
    y = normalised_block(depthwise_conv_bn, merge, x, filters, gamma, beta)
    return jnp.sum(y * weights)

  return jax.grad(loss, argnums=(0, 1, 2, 3))(x, filters, gamma, beta)


def exact_block_gradients(x, filters, gamma, beta, weights):
  """Apply the chain rule to the oracle's three ops."""
  conv = dict(activation=None, stride=1, padding="SAME")
  raw = oracle.depthwise_conv_bn(x, filters, None, None, **conv)
  y, *moments = raw.values()
  affine = oracle.batch_norm_affine(*moments, gamma, beta, epsilon=1e-3)
  d = oracle.batch_norm_gradients(
    y, **affine, dy=weights, dmean=0, activation="silu"
  )
  dy = d["dx"]
  d = oracle.batch_norm_affine_gradients(
    *moments, gamma, beta, d["dscale"], d["doffset"], epsilon=1e-3
  )
  dx, dfilters = oracle.depthwise_conv_bn_gradients(
    x, filters, None, None, dy, d["dmean"], d["dm2"], **conv
  ).values()
  return {
    "dx": dx,
    "dfilters": dfilters,
    "dgamma": d["dgamma"],
    "dbeta": d["dbeta"],
  }


@pytest.mark.parametrize("group_size", [1, 8])
def test_a_group_is_one_device_with_all_its_images(group_size):
  rng = np.random.default_rng(0)
  shapes = (3, 4, 16, 2), (3, 3, 2), (2,), (2,), (3, 4, 16, 2)
  inputs = [jnp.asarray(rng.normal(size=s), F32) for s in shapes]
  names = "dx", "dfilters", "dgamma", "dbeta"
  images, weights = P(None, None, ALL_DEVICES), (P(), P(), P())
  groups = 8 // group_size
  sharded = jax.shard_map(
    partial(block_gradients, group_moments),
    mesh=group_mesh(group_size=group_size),
    in_specs=(images, *weights, images),
    out_specs=(images, *weights),
    check_vma=True,
  )

  def per_group(function):
    """Concatenate dx of all images, and sum the weights' gradients."""

    def of_all(x, filters, gamma, beta, weights):
      grads = [
        function(x_, filters, gamma, beta, weights_)
        for x_, weights_ in zip(
          np.split(np.asarray(x), groups, 2),
          np.split(np.asarray(weights), groups, 2),
          strict=True,
        )
      ]
      dx, *rest = zip(*grads, strict=True)
      summed = [sum(np.float64(g) for g in r) for r in rest]
      return dict(zip(names, [np.concatenate(dx, 2), *summed], strict=True))

    return of_all

  assert_accurate(
    dict(zip(names, jax.jit(sharded)(*inputs), strict=True)),
    per_group(jax.jit(partial(block_gradients, lambda m: m)))(*inputs),
    per_group(lambda *args: exact_block_gradients(*args).values()),
    *inputs,
  )


X, ONES = jnp.ones((2, 2, 2, 3)), jnp.ones(3)


@pytest.mark.parametrize(
  "args, kwargs, message",
  [
    ((X[0], ONES, ONES), {}, "4 dimensions (HWNC), got shape (2, 2, 3)"),
    (
      (X, jnp.ones(2), ONES),
      {},
      "shape (3,) for x of shape (2, 2, 2, 3) in HWNC, got (2,)",
    ),
    ((X, ONES, ONES), {"layout": "HWCN"}, "scale must have shape (2,)"),
    ((X, ONES, jnp.ones((3, 1))), {}, "offset must have shape (3,)"),
    ((X, ONES.astype(BF16), ONES), {}, "scale must be float32, got bfloat16"),
    ((X.astype(int), ONES, ONES), {}, "of a floating dtype, got int32"),
    ((X[:0], ONES, ONES), {}, "x is empty, shape (0, 2, 2, 3)"),
    ((X, ONES, ONES), {"layout": "NCHW"}, "HWCN or NHWC, got 'NCHW'"),
    ((X, ONES, ONES), {"activation": "swish"}, "got 'swish'"),
    ((X, ONES, ONES), {"implementation": "xl"}, "did you mean 'xla'?"),
  ],
)
def test_mistakes_are_named(args, kwargs, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    batch_norm(*args, **kwargs)


def test_a_named_implementation_does_not_fall_back():
  with pytest.raises(NotImplementedError, match="no 'pallas_tpu'"):
    batch_norm(X, ONES, ONES, implementation="pallas_tpu")


def test_mistakes_in_the_affine_are_named():
  moments = Moments(jnp.float32(4), ONES, ONES)
  message = "gamma (2,) and beta (3,) must have one shape"
  with pytest.raises(ValueError, match=re.escape(message)):
    batch_norm_affine(moments, jnp.ones(2), ONES)
  with pytest.raises(ValueError, match="epsilon must not be below 0, got -1"):
    batch_norm_affine(moments, ONES, ONES, epsilon=-1.0)
