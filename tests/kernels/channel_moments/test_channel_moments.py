import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import oracle
from support.tolerance import assert_accurate, half_ulp

from podscale.kernels import Moments, channel_moments

F32, BF16 = jnp.float32, jnp.bfloat16
ULP = half_ulp(F32)
ROUNDINGS = 10  # of a value before the sums, and of the sums after


def in_layout(layout, x):
  return jnp.swapaxes(x, 2, 3) if layout == "HWCN" else x


def plain(x):
  x = x.astype(F32)
  mean = jnp.mean(x, axis=(0, 1, 2))
  m2 = jnp.sum(jnp.square(x - mean[None, None, None]), axis=(0, 1, 2))
  return Moments(jnp.float32(x[..., 0].size), mean, m2)


def everything(op, layout, x, dmean, dm2):
  """Compute results and gradient of `op` by name, from and to HWNC."""
  moments, vjp = jax.vjp(op, in_layout(layout, x))
  (dx,) = vjp(Moments(jnp.zeros(()), dmean, dm2))
  return {**moments._asdict(), "dx": in_layout(layout, dx)}


def exact(x, dmean, dm2):
  dx = oracle.moments_gradient(x, dmean, dm2)
  return {**oracle.moments(x), "dx": dx}


def check(shape, layout, dtype):
  rng = np.random.default_rng(shape)
  x = jnp.asarray(rng.normal(size=shape), dtype)
  dmean, dm2 = jnp.asarray(rng.normal(size=(2, shape[3])), F32)
  inputs = x, dmean * x[..., 0].size, dm2
  op = partial(channel_moments, layout=layout)
  actual = jax.jit(partial(everything, op, layout))(*inputs)
  assert_accurate(
    actual, jax.jit(partial(everything, plain, "HWNC"))(*inputs), exact, *inputs
  )
  assert actual["dx"].dtype == dtype
  assert {actual[m].dtype for m in ("count", "mean", "m2")} == {jnp.dtype(F32)}


@pytest.mark.parametrize(
  "shape, layout, dtype",
  [
    ((2, 3, 17, 130), "HWNC", "float32"),
    ((1, 4, 33, 1), "HWCN", "float32"),
    ((1, 1, 1, 3), "HWNC", "float32"),
    ((5, 1, 7, 3), "HWNC", "bfloat16"),
    ((2, 3, 17, 130), "HWCN", "bfloat16"),
  ],
)
def test_values_and_gradients(shape, layout, dtype):
  check(shape, layout, dtype)


@settings(max_examples=5, deadline=None, derandomize=True, database=None)
@given(
  shape=st.tuples(*[st.integers(1, 5)] * 2, st.integers(1, 40), st.just(2)),
  layout=st.sampled_from(["HWNC", "HWCN"]),
)
def test_any_small_shape(shape, layout):
  check(shape, layout, "float32")


@pytest.mark.parametrize("layout", ["HWNC", "HWCN"])
def test_a_given_pivot_changes_only_roundings_and_has_no_gradient(layout):
  rng = np.random.default_rng(0)
  x = jnp.asarray(3 + rng.normal(size=(5, 4, 6, 7)), F32)
  pivot = jnp.asarray(3 + 0.1 * rng.normal(size=7), F32)
  want = oracle.moments(x)

  def moments(x, pivot):
    x = in_layout(layout, x)
    return channel_moments(x, pivot=pivot, layout=layout)

  actual = moments(x, pivot)
  # The sums have 120 terms (Higham, section 4.2). The pivot is within one
  # standard deviation of the mean, so what cancels in m2 is at most as large as
  # m2.
  bound = (120 + ROUNDINGS) * ULP
  np.testing.assert_allclose(actual.mean, want["mean"], rtol=bound)
  np.testing.assert_allclose(actual.m2, want["m2"], rtol=2 * bound)
  cotangent = Moments(jnp.zeros(()), jnp.ones(7), jnp.ones(7))
  dx, dpivot = jax.vjp(moments, x, pivot)[1](cotangent)
  assert not dpivot.any()
  np.testing.assert_allclose(
    dx,
    oracle.moments_gradient(x, np.ones(7), np.ones(7)),
    rtol=0,
    atol=ROUNDINGS * ULP * np.abs(x).max(),
  )


def test_a_pivot_of_another_shape_is_refused():
  with pytest.raises(ValueError, match=r"pivot must have shape \(3,\)"):
    channel_moments(jnp.ones((2, 2, 2, 3)), pivot=jnp.ones(4))


def assert_m2_as_promised(x):
  """Check that m2 has at most h times the error of a plain sum.

  At most h times m2 cancels. A float32 sum of `count` terms has an error of at
  most `count` half ulps.
  """
  count, _, m2 = oracle.moments(x).values()
  bound = x.shape[0] * (count + ROUNDINGS) * ULP * m2
  error = np.abs(np.float64(channel_moments(x).m2) - m2)
  assert (error <= bound).all(), (error / bound).max()


@pytest.mark.parametrize("mean", [0.0, 1e3])
@pytest.mark.parametrize("outlier", [1.0, 1e3])
def test_cancellation_when_the_pivots_row_is_an_outlier(outlier, mean):
  # In the worst case all of the variance is the distance of one row.
  rng = np.random.default_rng(0)
  x = mean + 1e-3 * rng.normal(size=(9, 2, 3, 20))
  x[4] += outlier
  assert_m2_as_promised(jnp.asarray(x, F32))


@pytest.mark.parametrize("row", range(5))
def test_cancellation_when_any_one_row_is_an_outlier(row):
  x = np.random.default_rng(1).normal(size=(5, 2, 3, 20))
  x[row] += 100
  assert_m2_as_promised(jnp.asarray(x, F32))


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(
  ratio=st.floats(-100, 100), std=st.floats(1e-3, 1e3), seed=st.integers(0, 99)
)
def test_variance_has_four_correct_digits(ratio, std, seed):
  rng = np.random.default_rng(seed)
  x = jnp.asarray(std * (ratio + rng.normal(size=(4, 4, 20, 3))), F32)
  want = oracle.moments(x)["m2"]
  np.testing.assert_allclose(channel_moments(x).m2, want, rtol=1e-4)


def test_large_mean_and_small_deviation():
  # E[x^2] - E[x]^2 has no correct digit here: 1e6 * 2^-24 is 600 times 1e-4.
  rng = np.random.default_rng(2)
  x = jnp.asarray(1e3 + 1e-2 * rng.normal(size=(4, 5, 17, 3)), F32)
  want = oracle.moments(x)
  moments = channel_moments(x)
  # x - shift is exact (Sterbenz), so the mean is rounded once or twice.
  np.testing.assert_allclose(moments.mean, want["mean"], rtol=4 * ULP)
  assert_m2_as_promised(x)

  # The gradient is 2 x - 2 mean, and both terms are about 2e3.
  zero, one = jnp.zeros(()), jnp.ones(3)
  (dx,) = jax.vjp(channel_moments, x)[1](Moments(zero, 0 * one, one))
  np.testing.assert_allclose(
    dx, oracle.moments_gradient(x, 0 * one, one), rtol=0, atol=4 * ULP * 2e3
  )


def test_large_mean_in_bfloat16():
  # Neighbouring bfloat16 values are 4 apart at 1e3, so the oracle gets the
  # rounded x.
  rng = np.random.default_rng(3)
  x = jnp.asarray(1e3 + 8 * rng.normal(size=(4, 5, 7, 3)), BF16)
  np.testing.assert_allclose(
    channel_moments(x).mean, oracle.moments(x)["mean"], rtol=4 * ULP
  )
  assert_m2_as_promised(x)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e3, 1e-30, 1e15])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_constant_channel_has_no_variance(value, dtype):
  x = jnp.full((3, 5, 7, 1), value, dtype)
  _, (mean,), (m2,) = channel_moments(x)
  value, count = float(x[0, 0, 0, 0]), x.size
  # The mean of the middle row has a sum of up to 35 terms and a division.
  error = (35 + 1) * ULP * abs(value)
  assert abs(mean - value) <= error
  assert 0 <= m2 <= count * error**2


def test_one_element_is_its_own_mean():
  x = jnp.array([0.1, -1e30, 1e-30]).reshape(1, 1, 1, 3)
  count, mean, m2 = channel_moments(x)
  assert count == 1
  np.testing.assert_array_equal(mean, x[0, 0, 0])
  np.testing.assert_array_equal(m2, jnp.zeros(3))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("row", [0, 1])
def test_only_the_channel_of_a_value_that_is_not_finite_shows_it(row, bad):
  x = jnp.ones((2, 2, 3, 2)).at[row, 1, 2, 0].set(bad)
  _, mean, m2 = channel_moments(x)
  assert np.isfinite(mean).tolist() == [False, True]
  assert np.isnan(m2).tolist() == [True, False]


@pytest.mark.parametrize(
  "x, kwargs, message",
  [
    (np.ones((2, 3), np.float32), {}, "4 dimensions (HWNC), got shape (2, 3)"),
    (np.ones((1, 2, 3, 4), np.int8), {}, "of a floating dtype, got int8"),
    (np.ones((1, 2, 0, 4), np.float32), {}, "x is empty, shape (1, 2, 0, 4)"),
    (np.ones((1, 2, 3, 4)), {"layout": "NCHW"}, "HWCN or NHWC, got 'NCHW'"),
  ],
)
def test_mistakes_are_named(x, kwargs, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    channel_moments(x, **kwargs)
