import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import oracle
from support.abstract_tpu import on
from support.banded import in_bands
from support.plain_activation import activate
from support.slow_case import slow
from support.tolerance import assert_accurate
from support.tpu_interpreter import as_on_a_tpu

from podscale.kernels import (
  Moments,
  channel_moments,
  describe,
  gated_pointwise_conv_bn,
)

F32, BF16 = jnp.float32, jnp.bfloat16
NAMES = "dx", "dkernel", "dscale", "doffset", "dslope", "dbase"


def gate(params, mean):
  slope, base = params
  return (slope[None] * mean + base[None]).astype(base.dtype)


def draw(shape, features, dtype):
  """Operands, the gate's parameters, and the cotangents of y, mean and m2."""
  rng = np.random.default_rng(shape)
  h, w, n, c = shape
  x = jnp.asarray(rng.normal(size=shape), dtype)
  kernel = jnp.asarray(rng.normal(size=(c, features)), dtype)
  scale = jnp.asarray(rng.uniform(0.5, 2, c), F32)
  offset, slope = jnp.asarray(rng.normal(size=(2, c)), F32)
  base = jnp.asarray(rng.normal(size=c), F32)
  dy = jnp.asarray(rng.normal(size=(h, w, n, features)), dtype)
  dmean = jnp.asarray(h * w * n * rng.normal(size=features), F32)
  dm2 = jnp.asarray(rng.normal(size=features), F32)
  return x, kernel, scale, offset, slope, base, dy, dmean, dm2


def plain(activation, x, kernel, scale, offset, slope, base):
  z = x.astype(F32) * scale[None, None, None] + offset[None, None, None]
  z = activate(z, activation)
  factor = gate((slope, base), z.mean((0, 1))).astype(x.dtype)
  gated = z.astype(x.dtype) * factor[None, None]
  y = jnp.matmul(gated, kernel, preferred_element_type=F32)
  return y.astype(x.dtype), channel_moments(y)


def gated(
  activation, x, kernel, scale, offset, slope, base, *, bands, form=None
):
  return gated_pointwise_conv_bn(
    *(x, kernel, scale, offset),
    lambda params, mean: gate(params, mean).astype(x.dtype),
    (slope, base),
    activation=activation,
    bands=bands,
    implementation=form,
  )


def everything(op, *inputs):
  *operands, dy, dmean, dm2 = inputs
  (y, moments), vjp = jax.vjp(op, *operands)
  gradients = vjp((dy, Moments(jnp.zeros(()), dmean, dm2)))
  return {
    "y": y,
    **moments._asdict(),
    **dict(zip(NAMES, gradients, strict=True)),
  }


def exact(x, kernel, scale, offset, slope, base, dy, dmean, dm2, *, activation):
  normalised = oracle.batch_norm(x, scale, offset, activation=activation)
  z, mean = normalised["y"], normalised["mean"]
  kernel, slope, base, dy = (
    np.asarray(a, np.float64) for a in (kernel, slope, base, dy)
  )
  factor = slope * mean + base
  y = (z * factor) @ kernel
  dy = dy + oracle.moments_gradient(y, dmean, dm2)
  dgated = dy @ kernel.T
  dfactor = (dgated * z).sum((0, 1))
  gradients = oracle.batch_norm_gradients(
    x, scale, offset, dgated * factor, slope * dfactor, activation=activation
  )
  return {
    "y": y,
    **oracle.moments(y),
    **gradients,
    "dkernel": np.einsum("hwnc,hwnd->cd", z * factor, dy),
    "dslope": (dfactor * mean).sum(0),
    "dbase": dfactor.sum(0),
  }


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize(
  ("shape", "features", "bands", "activation"),
  [
    ((4, 5, 3, 8), 3, 1, "silu"),
    ((4, 5, 3, 8), 3, 4, "silu"),
    ((6, 2, 9, 5), 7, 3, "relu"),
    ((6, 2, 9, 5), 7, 3, "hard_swish"),
    ((6, 2, 9, 5), 7, 1, "gelu"),
    ((1, 1, 1, 2), 3, 1, None),
  ],
)
def test_values_and_gradients(shape, features, bands, activation, dtype):
  check(shape, features, bands, activation, dtype)


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_without_a_gate(dtype):
  x, kernel, scale, offset, *_, dy, dmean, dm2 = draw((4, 5, 3, 8), 3, dtype)

  def run(gate):
    @jax.jit
    def op(*args):
      return gated_pointwise_conv_bn(*args, gate, activation="silu")

    (y, moments), vjp = jax.vjp(op, x, kernel, scale, offset)
    return y, vjp((dy, moments._replace(mean=dmean, m2=dm2)))

  actual, want = run(None), run(lambda _, mean: jnp.ones(mean.shape, dtype))
  jax.tree.map(np.testing.assert_array_equal, actual, want)


def test_without_a_gate_nothing_is_multiplied_by_it():
  x, kernel, scale, offset, *_ = draw((4, 5, 3, 8), 3, F32)
  forward = jax.jit(gated_pointwise_conv_bn)
  hlo = forward.lower(x, kernel, scale, offset).compile().as_text()
  # The gate would have the shape [n, c].
  assert "f32[3,8]" not in hlo


def check(shape, features, bands, activation, dtype, form=None):
  inputs = draw(shape, features, dtype)
  op = in_bands(partial(gated, activation, form=form), bands)
  actual = jax.jit(partial(everything, op))(*inputs)
  assert_accurate(
    actual,
    jax.jit(partial(everything, partial(plain, activation)))(*inputs),
    partial(exact, activation=activation),
    *inputs,
  )
  assert {actual[name].dtype for name in ("y", "dx", "dkernel")} == {
    jnp.dtype(dtype)
  }
  assert {actual[n].dtype for n in (*NAMES[2:], "mean", "m2")} == {
    jnp.dtype(F32)
  }


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize(
  ("shape", "features", "bands", "activation"),
  [
    ((4, 5, 16, 8), 3, 1, "silu"),
    ((4, 5, 16, 8), 3, 4, "silu"),
    slow((3, 2, 32, 50), 7, 3, "relu"),
    ((2, 2, 16, 2), 3, 1, None),
    ((2, 2, 16, 2), 3, 1, "relu6"),
  ],
)
def test_the_kernel(shape, features, bands, activation, dtype, interpret):
  interpret()
  check(shape, features, bands, activation, dtype, "pallas_tpu")


@pytest.mark.parametrize("bands", [slow(1), 4])
def test_the_kernel_in_several_steps(bands, interpret, few_pixels):
  interpret()
  check((4, 5, 16, 8), 3, bands, "silu", BF16, "pallas_tpu")


def test_no_races_and_no_memory_read_before_it_is_written(few_pixels):
  with as_on_a_tpu():
    check((4, 3, 16, 8), 3, 2, "silu", BF16, "pallas_tpu")


@pytest.mark.parametrize(
  ("chip", "name", "reason"),
  [
    ("v5e", "pallas_tpu", "estimated ahead of XLA on v5e"),
    ("v6e", "pallas_tpu", "estimated ahead of XLA on v6e"),
    ("v4", "xla", "not estimated ahead of XLA on v4"),
    ("v3", "xla", "not estimated ahead of XLA on v3"),
  ],
)
def test_what_runs_is_described(chip, name, reason):
  vector = jax.ShapeDtypeStruct((144,), F32)
  x = jax.ShapeDtypeStruct((65, 65, 64, 144), BF16)
  kernel = jax.ShapeDtypeStruct((144, 24), BF16)
  with on(chip):
    choice = describe(
      *(gated_pointwise_conv_bn, x, kernel, vector, vector, gate, None)
    )
  assert choice.implementation == name
  assert reason in choice.reason


def test_of_the_wide_arrays_only_the_input_is_kept():
  *operands, _, _, _ = draw((4, 5, 3, 8), 3, BF16)
  op = partial(gated, "silu", bands=1)
  _, vjp = jax.eval_shape(partial(jax.vjp, op), *operands)
  kept = [leaf.shape for leaf in jax.tree.leaves(vjp) if leaf.ndim == 4]
  # y is for the moments.
  assert sorted(kept) == [(4, 5, 3, 3), (4, 5, 3, 8)]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"x": jnp.ones((2, 2, 3))}, "x must have 4 dimensions (HWNC), got shape"),
    ({"kernel": jnp.ones((4, 2))}, "kernel must have shape (3, d) for x of"),
    ({"kernel": jnp.ones((3, 2), BF16)}, "kernel is bfloat16 but x is float32"),
    ({"scale": jnp.ones(4)}, "scale must have shape (3,) for x of shape"),
    ({"offset": jnp.ones(3, BF16)}, "offset must be float32, got bfloat16"),
    ({"activation": "swish"}, "'gelu_tanh' or None, got 'swish'"),
    ({"bands": 2}, "3 channels of x (2, 2, 1, 3) do not divide into 2 bands"),
  ],
)
def test_mistakes_are_named(change, message):
  ones = jnp.ones(3)
  given = {
    "x": jnp.ones((2, 2, 1, 3)),
    "kernel": jnp.ones((3, 2)),
    "scale": ones,
    "offset": ones,
    "gate": gate,
    "gate_params": (ones, ones),
  }
  with pytest.raises(ValueError, match=re.escape(message)):
    gated_pointwise_conv_bn(**given | change)
