import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from support import oracle
from support.abstract_tpu import on
from support.banded import in_bands
from support.slow_case import slow
from support.tolerance import assert_accurate
from support.tpu_interpreter import as_on_a_tpu

from podscale.collectives import ALL_DEVICES, group_mesh
from podscale.kernels import (
  Moments,
  channel_moments,
  describe,
  pointwise_conv_bn,
)

F32, BF16 = jnp.float32, jnp.bfloat16


def draw(shape, features, dtype, mean=0.0):
  """x, kernel and the cotangents of y, mean and m2."""
  rng = np.random.default_rng(shape)
  h, w, n, c = shape
  x = jnp.asarray(rng.normal(mean, 1, shape), dtype)
  kernel = jnp.asarray(rng.normal(size=(c, features)), dtype)
  dy = jnp.asarray(rng.normal(size=(h, w, n, features)), dtype)
  # So that y, mean and m2 weigh the same in the gradients.
  dmean = jnp.asarray(h * w * n * rng.normal(size=features), F32)
  dm2 = jnp.asarray(rng.normal(size=features), F32)
  return x, kernel, dy, dmean, dm2


def plain(x, kernel):
  y = jnp.matmul(x, kernel, preferred_element_type=F32)
  return y.astype(x.dtype), channel_moments(y)


def everything(op, x, kernel, dy, dmean, dm2):
  (y, moments), vjp = jax.vjp(op, x, kernel)
  dx, dkernel = vjp((dy, Moments(jnp.zeros(()), dmean, dm2)))
  return {"y": y, **moments._asdict(), "dx": dx, "dkernel": dkernel}


def exact(x, kernel, dy, dmean, dm2):
  x, kernel, dy = (np.asarray(a, np.float64) for a in (x, kernel, dy))
  y = x @ kernel
  dy = dy + oracle.moments_gradient(y, dmean, dm2)
  return {
    "y": y,
    **oracle.moments(y),
    "dx": dy @ kernel.T,
    "dkernel": np.einsum("hwnc,hwnd->cd", x, dy),
  }


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize(
  ("shape", "features", "bands"),
  [
    ((4, 5, 3, 3), 8, 1),
    ((4, 5, 3, 3), 8, 4),
    ((6, 2, 9, 5), 30, 3),
    ((4, 5, 3, 8), 3, 1),
    ((4, 5, 3, 8), 3, 2),
    ((1, 1, 1, 2), 3, 1),
  ],
)
def test_values_and_gradients(shape, features, bands, dtype):
  inputs = draw(shape, features, dtype)
  actual = jax.jit(partial(everything, in_bands(pointwise_conv_bn, bands)))(
    *inputs
  )
  wanted = jax.jit(partial(everything, plain))(*inputs)
  assert_accurate(actual, wanted, exact, *inputs)
  assert {actual[name].dtype for name in ("y", "dx", "dkernel")} == {
    jnp.dtype(dtype)
  }


def check_kernel(shape, features, bands, dtype):
  inputs = draw(shape, features, dtype)
  op = partial(pointwise_conv_bn, implementation="pallas_tpu")
  actual = jax.jit(partial(everything, in_bands(op, bands)))(*inputs)
  wanted = jax.jit(partial(everything, plain))(*inputs)
  assert_accurate(actual, wanted, exact, *inputs)
  assert {actual[name].dtype for name in ("y", "dx", "dkernel")} == {
    jnp.dtype(dtype)
  }


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize(
  ("shape", "features", "bands"),
  [((4, 5, 16, 3), 8, 1), ((4, 5, 16, 3), 8, 4), slow((3, 2, 32, 5), 130, 3)],
)
def test_the_kernel(shape, features, bands, dtype, interpret):
  interpret()
  check_kernel(shape, features, bands, dtype)


@pytest.mark.parametrize("bands", [slow(1), 4])
def test_the_kernel_in_several_steps(bands, interpret, few_pixels):
  interpret()
  check_kernel((4, 5, 16, 3), 8, bands, BF16)


def test_no_races_and_no_memory_read_before_it_is_written(few_pixels):
  with as_on_a_tpu():
    check_kernel((4, 3, 16, 3), 8, 2, BF16)


def sizes(shape, features, dtype=BF16):
  return (
    jax.ShapeDtypeStruct(shape, dtype),
    jax.ShapeDtypeStruct((shape[3], features), dtype),
  )


@pytest.mark.parametrize("chip", ["v5e", "v6e"])
def test_the_kernel_is_chosen_where_it_was_measured_ahead(chip):
  with on(chip):
    choice = describe(pointwise_conv_bn, *sizes((65, 65, 64, 24), 144))
  assert (choice.implementation, choice.chip) == ("pallas_tpu", chip)


@pytest.mark.parametrize(
  ("chip", "arrays", "reason"),
  [
    (
      "v5e",
      sizes((8, 8, 64, 24), 16),
      "out_channels > in_channels, got 24 to 16",
    ),
    ("v5e", sizes((8, 8, 24, 24), 96), "24 images; use a multiple of 16"),
    ("v5e", sizes((8, 8, 64, 24), 96, F32), "in bfloat16, x is float32"),
    (
      "v5e",
      sizes((8, 8, 64, 24), 96, jnp.float16),
      "in bfloat16, x is float16",
    ),
    ("v5e", sizes((8, 8, 64, 640), 20480), "bytes in VMEM; v5e has "),
    ("v4", sizes((8, 8, 64, 24), 96), "not estimated ahead of XLA on v4"),
    ("v3", sizes((8, 8, 64, 24), 96), "not estimated ahead of XLA on v3"),
  ],
)
def test_xla_is_chosen_elsewhere_and_the_reason_given(chip, arrays, reason):
  with on(chip):
    choice = describe(pointwise_conv_bn, *arrays)
  assert choice.implementation == "xla"
  assert reason in choice.reason


def test_the_kernel_is_refused_where_it_cannot_run():
  x, kernel, *_ = draw((4, 5, 3, 3), 8, BF16)
  with pytest.raises(NotImplementedError, match="does not support 3 images"):
    pointwise_conv_bn(x, kernel, implementation="pallas_tpu")
  pointwise_conv_bn(x, kernel, implementation=("pallas_tpu", "xla"))


@pytest.mark.parametrize("mean", [100.0, -100.0])
def test_values_far_from_zero(mean):
  """The plain gradients are off by 300 times the floor there."""
  inputs = draw((4, 5, 3, 3), 8, F32, mean)
  actual = jax.jit(partial(everything, pointwise_conv_bn))(*inputs)
  want = exact(*inputs)
  in_float64 = {name: np.float64(value) for name, value in want.items()}
  assert_accurate(actual, in_float64, exact, *inputs)


@pytest.mark.parametrize("features", [3, 16])
def test_what_is_kept_for_the_backward_pass(features):
  """The narrower of x and y beside x."""
  x, kernel, *_ = draw((4, 5, 3, 8), features, BF16)
  _, vjp = jax.eval_shape(partial(jax.vjp, pointwise_conv_bn), x, kernel)
  kept = [leaf.shape for leaf in jax.tree.leaves(vjp) if leaf.ndim == 4]
  assert kept == [x.shape] + [(4, 5, 3, 3)] * (features == 3)


def test_gradients_of_a_replicated_kernel_are_summed():
  x, kernel, dy, dmean, dm2 = draw((4, 5, 8, 3), 8, F32)

  def gradient(x, kernel, dy):
    (_, moments), vjp = jax.vjp(pointwise_conv_bn, x, kernel)
    axes = tuple(ALL_DEVICES)
    cotangents = [jax.lax.pcast(d, axes, to="varying") for d in (dmean, dm2)]
    return vjp((dy, Moments(jnp.zeros(()), *cotangents)))[1]

  images = P(None, None, ALL_DEVICES)
  sharded = jax.shard_map(
    gradient,
    mesh=group_mesh(group_size=2),
    in_specs=(images, P(), images),
    out_specs=P(),
  )
  of_each = [
    everything(pointwise_conv_bn, a, kernel, b, dmean, dm2)["dkernel"]
    for a, b in zip(jnp.split(x, 8, 2), jnp.split(dy, 8, 2), strict=True)
  ]
  want = np.sum(of_each, 0, dtype=np.float64)
  error = np.abs(jax.jit(sharded)(x, kernel, dy) - want).max()
  # 8 devices, of 4 * 5 pixels each, in another order: a rounding for each.
  assert error <= 20 * 2.0**-24 * np.abs(of_each).max() * 8


@pytest.mark.parametrize(
  ("x", "kernel", "bands", "message"),
  [
    ((2, 2, 3), (3, 4), 1, "x must have 4 dimensions (HWNC), got shape"),
    ((2, 2, 1, 3), (4, 4), 1, "kernel must have shape (3, d) for x of shape"),
    ((2, 2, 1, 4), (4, 4), 2, "(2, d) for x of shape (2, 2, 1, 4) in 2 bands"),
    ((2, 2, 1, 3), (3, 4), 2, "3 channels of x (2, 2, 1, 3) do not divide"),
    ((2, 2, 1, 3), (3,), 1, "got (3,)"),
  ],
)
def test_mistakes_are_named(x, kernel, bands, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    pointwise_conv_bn(jnp.ones(x), jnp.ones(kernel), bands=bands)


def test_dtypes_must_agree():
  x, kernel = jnp.ones((2, 2, 1, 3)), jnp.ones((3, 4), BF16)
  with pytest.raises(ValueError, match="kernel is bfloat16 but x is float32"):
    pointwise_conv_bn(x, kernel)
