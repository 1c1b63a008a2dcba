import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.tolerance import half_ulp

from podscale.kernels.common.channel_sums import Rows, channel_sums

F32 = jnp.float32


def terms(x, dy):
  x, dy = x.astype(F32), dy.astype(F32)
  return x * dy, x + 1


@pytest.mark.parametrize(
  "layout, dtype", [("HWNC", "float32"), ("HWCN", "bfloat16")]
)
@pytest.mark.parametrize(
  ("h", "n"),
  [(3, n) for n in (1, 7, 16, 17, 33, 40)]
  + [(h, 17) for h in (14, 16, 17, 33, 40)]
  + [(5, 4)],
)
def test_every_image_counts_once(h, n, layout, dtype):
  rng = np.random.default_rng(n)
  # With small integers every order of summation is exact.
  x, dy = jnp.asarray(rng.integers(-8, 9, (2, h, 2, n, 5)), dtype)
  want = [np.float64(t).sum((0, 1, 2)) for t in terms(x, dy)]
  if layout == "HWCN":
    x, dy = jnp.swapaxes(x, 2, 3), jnp.swapaxes(dy, 2, 3)
  sums = jax.jit(lambda x, dy: channel_sums(terms, x, dy, layout=layout))(x, dy)
  assert {s.dtype for s in sums} == {jnp.dtype(F32)}
  np.testing.assert_array_equal(sums, want)


@pytest.mark.parametrize("n", [33, 256])
def test_long_sums_are_float32_sums(n):
  rng = np.random.default_rng(n)
  x = jnp.asarray(rng.normal(size=(16, 16, n, 3)), F32)
  (sums,) = channel_sums(lambda x: (x,), x, layout="HWNC")
  # The a priori bound of sequential addition: each step adds half an ulp of the
  # partial sum.
  so_far = np.abs(np.cumsum(np.float64(x).reshape(-1, 3), axis=0))
  error = np.abs(sums - np.float64(x).sum((0, 1, 2)))
  assert (error <= half_ulp(F32) * so_far.sum(0)).all()


def test_arrays_of_other_heights_and_widths():
  # In the filter gradient a window of x meets dy.
  x = jnp.arange(3.0 * 4 * 17 * 2).reshape(3, 4, 17, 2)
  dy = jnp.arange(2.0 * 2 * 17 * 2).reshape(2, 2, 17, 2)
  (sums,) = channel_sums(lambda x, dy: (x[1:, 2:] * dy,), x, dy, layout="HWNC")
  want = np.float64(x[1:, 2:]) * np.float64(dy)
  np.testing.assert_allclose(sums, want.sum((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("out", [14, 17, 33])
def test_windows_of_rows(out, stride):
  rng = np.random.default_rng(out)
  x = jnp.asarray(rng.integers(-8, 9, ((out - 1) * stride + 3, 2, 2, 3)), F32)
  dy = jnp.asarray(rng.integers(-8, 9, (out, 2, 2, 3)), F32)

  def products(x, dy):
    last = (len(dy) - 1) * stride + 1
    return tuple(x[i : i + last : stride] * dy for i in range(3))

  sums = channel_sums(
    products, x, dy, layout="HWNC", rows=(Rows(stride, 3), Rows())
  )
  want = [np.float64(t).sum((0, 1, 2)) for t in products(x, dy)]
  np.testing.assert_array_equal(sums, want)


def test_only_cpus_sum_in_blocks():
  # The choice is made in lowering, so that one machine can compile for another.
  x = jnp.ones((2, 2, 17, 3))
  traced = jax.jit(
    lambda x: channel_sums(lambda x: (x,), x, layout="HWNC")
  ).trace(x)
  barriers = {
    platform: traced.lower(lowering_platforms=(platform,))
    .as_text()
    .count("optimization_barrier")
    for platform in ("cpu", "tpu", "cuda")
  }
  assert barriers["cpu"] > 0
  assert barriers["tpu"] == barriers["cuda"] == 0
