import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P
from support import oracle
from support.depthwise_cases import (
  BF16,
  F32,
  Case,
  check,
  check_without_moments,
  draw,
  everything,
  exact,
  in_layout,
  plain,
)
from support.tolerance import assert_accurate

from podscale.collectives import ALL_DEVICES, group_mesh
from podscale.kernels import Moments, depthwise_conv_bn
from podscale.kernels.depthwise_conv.window import window

# Each case compiles two programs, so there are few. Every activation meets all
# choices of scale and offset, and each other setting meets most others. Batches
# divide into blocks or not; there is one channel or more than 128; images are
# odd, even, and smaller than the filter. In bfloat16, relu has no scale and
# offset: rounding x could move a value across 0, and the tolerance with it.
CASES = [
  Case(3, 1, "SAME", (5, 4, 7, 3)),
  Case(3, 1, "VALID", (4, 5, 1, 130), "HWCN", "float32", None, "offset"),
  Case(3, 2, "SAME", (5, 5, 17, 3), "HWCN", affine="scale"),
  Case(3, 2, "SAME", (4, 6, 33, 1), activation="relu", affine="scale"),
  Case(5, 1, "SAME", (2, 3, 2, 3), affine="offset"),
  Case(5, 2, "SAME", (1, 1, 1, 3), "HWCN", activation="relu"),
  Case(5, 2, "VALID", (6, 7, 1, 3), activation=None, affine=""),
  Case(7, 1, "SAME", (5, 8, 1, 3), "HWCN", "float32", None, "scale"),
  Case(7, 2, "SAME", (8, 5, 1, 1), activation="relu", affine="offset"),
  Case(1, 2, "SAME", (3, 4, 2, 3), activation=None),
  Case(3, 1, "SAME", (1, 1, 1, 1), affine=""),
  Case(3, 1, "SAME", (6, 5, 3, 3), dtype="bfloat16"),
  Case(3, 2, "SAME", (8, 5, 3, 3), dtype="bfloat16", bands=2),
  Case(3, 2, "VALID", (5, 6, 7, 3), "HWCN", "bfloat16", "relu", ""),
  Case(5, 2, "SAME", (7, 6, 1, 130), "HWCN", "bfloat16"),
  Case(3, 1, "SAME", (5, 4, 3, 2), activation="relu6"),
  Case(3, 2, "SAME", (5, 4, 3, 2), "HWCN", activation="hard_swish"),
  Case(3, 1, "SAME", (4, 4, 3, 2), dtype="bfloat16", activation="gelu"),
  Case(3, 1, "SAME", (4, 4, 3, 2), activation="gelu_tanh"),
]
# The models of PyTorch pad by k // 2 on both sides, which is not SAME where the
# stride is 2 and the size is even.
WINDOWS = [
  Case(3, 2, 1, (6, 4, 2, 3)),
  Case(5, 2, 2, (6, 5, 2, 3), "HWCN", dtype="bfloat16"),
  Case(3, 1, ((0, 2), (1, 0)), (4, 5, 2, 3)),
  Case(3, 2, ((3, 0), (0, 4)), (2, 3, 2, 3), affine="offset"),
  Case((1, 5), 1, "SAME", (3, 6, 2, 3)),
  Case((5, 1), (2, 1), ((2, 2), (0, 0)), (6, 3, 2, 3)),
  Case((1, 11), (1, 2), "VALID", (2, 14, 2, 3), activation=None, affine=""),
  Case(2, 2, "SAME", (5, 4, 2, 3)),
  Case(4, 1, "SAME", (5, 3, 2, 3), activation="relu", affine="scale"),
  Case(3, 1, 2, (6, 5, 2, 3), dilation=2),
  Case(3, 2, "SAME", (7, 6, 2, 3), dilation=(3, 2)),
  Case(3, (1, 2), "VALID", (7, 9, 1, 3), dilation=(1, 4)),
  # Filters of more than 49 taps, row by row.
  Case(9, 1, 4, (5, 4, 1, 2)),
  Case((8, 9), 2, "SAME", (14, 9, 2, 2), "HWCN"),
  Case(13, 2, ((5, 7), (6, 6)), (9, 12, 2, 2), activation="relu", affine=""),
  Case((11, 5), (1, 2), "VALID", (12, 9, 2, 2), dtype="bfloat16"),
  Case((9, 6), 1, 8, (6, 5, 2, 2), dilation=(2, 1)),
  Case(1, 2, 1, (1, 1, 1, 2), activation=None, affine=""),
  Case(3, 2, 1, (8, 4, 2, 3), bands=2),
]


@pytest.mark.parametrize(
  "case", [*CASES, *WINDOWS], ids=lambda case: "-".join(map(str, case))
)
def test_values_and_gradients(case):
  check(case)


@settings(max_examples=6, deadline=None, derandomize=True, database=None)
@given(
  kernel_size=st.sampled_from([1, 3]),
  stride=st.sampled_from([1, 2]),
  padding=st.sampled_from(["SAME", "VALID"]),
  shape=st.tuples(*[st.integers(1, 6)] * 2, *[st.integers(1, 3)] * 2),
  layout=st.sampled_from(["HWNC", "HWCN"]),
)
def test_any_small_shape(kernel_size, stride, padding, shape, layout):
  assume(padding == "SAME" or min(shape[:2]) >= kernel_size)
  check(Case(kernel_size, stride, padding, shape, layout))


@settings(deadline=None, derandomize=True, database=None)
@given(
  st.integers(1, 300), st.sampled_from([1, 3, 5, 7, 9]), st.sampled_from([1, 2])
)
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_windows_are_those_of_tensorflow(padding, size, kernel_size, stride):
  assume(padding == "SAME" or size >= kernel_size)
  ours = window(size, kernel_size, stride, padding)
  out, low, high = oracle.output_size_and_padding(
    size, kernel_size, stride, padding
  )
  assert (ours.out, ours.low) == (out, low)
  # `high` is lower, even negative, if no window reads the last inputs.
  assert ours.high <= high
  assert ours.low + size + ours.high == (out - 1) * stride + kernel_size


def test_moments_are_those_before_rounding():
  # Without a prologue, the taps read exact bfloat16 inputs, and only the result
  # is rounded to bfloat16.
  case = Case(3, 1, "SAME", (6, 5, 3, 4), dtype="bfloat16", affine="")
  case = case._replace(activation=None)
  x, filters, *_ = draw(case)
  _, moments = depthwise_conv_bn(x, filters)
  x, filters = x.astype(F32), filters.astype(F32)
  assert_accurate(
    moments._asdict(),
    plain(x, filters, None, None, **case.settings)[1]._asdict(),
    partial(oracle.depthwise_conv_bn, **case.settings),
    x,
    filters,
    None,
    None,
  )


@pytest.mark.parametrize(
  "case",
  [
    Case(3, 2, "SAME", (6, 5, 4, 3)),
    Case(3, 1, 1, (4, 5, 2, 3), "HWCN", "bfloat16"),
    Case(3, 1, "SAME", (4, 5, 2, 3), bands=2, affine=""),
  ],
)
def test_without_moments(case):
  check_without_moments(case)


def test_without_moments_only_x_is_kept_for_the_backward_pass():
  inputs = draw(Case(3, 2, "SAME", (6, 5, 4, 3), dtype="bfloat16"))[:4]
  op = partial(depthwise_conv_bn, activation="silu", stride=2, moments=False)
  _, vjp = jax.eval_shape(partial(jax.vjp, op), *inputs)
  kept = [leaf.shape for leaf in jax.tree.leaves(vjp) if leaf.ndim == 4]
  assert kept == [inputs[0].shape]


def test_a_nan_shows():
  x = jnp.ones((3, 3, 1, 2)).at[0, 0, 0, 1].set(jnp.nan)
  y, moments = depthwise_conv_bn(x, jnp.ones((3, 3, 2)))
  for per_channel in (y[1, 1, 0], moments.mean, moments.m2):
    assert np.isnan(per_channel).tolist() == [False, True]


@pytest.mark.parametrize("layout", ["HWNC", "HWCN"])
def test_only_x_and_y_are_kept_for_the_backward_pass(layout):
  inputs = draw(Case(3, 2, "SAME", (6, 5, 4, 3), dtype="bfloat16"))
  x = in_layout(layout, inputs[0])
  op = partial(depthwise_conv_bn, activation="silu", stride=2, layout=layout)
  (y, _), vjp = jax.eval_shape(partial(jax.vjp, op), x, *inputs[1:4])
  kept = [leaf for leaf in jax.tree.leaves(vjp) if leaf.ndim == 4]
  assert [(k.shape, k.dtype) for k in kept] == [
    (x.shape, BF16),
    (y.shape, BF16),
  ]


def grads_of_sums(op, x, filters, scale, offset):
  """Compute the gradients through y and both moments."""

  def loss(*args):
    y, moments = op(*args)
    return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.sin(moments.mean) + moments.m2)

  return jax.grad(loss, argnums=(0, 1, 2, 3))(x, filters, scale, offset)


def test_checkpoint_changes_nothing():
  inputs = draw(Case(3, 1, "SAME", (3, 4, 2, 3)))[:4]
  op = partial(depthwise_conv_bn, activation="silu")
  want = jax.jit(partial(grads_of_sums, op))(*inputs)
  got = jax.jit(partial(grads_of_sums, jax.checkpoint(op)))(*inputs)
  jax.tree.map(np.testing.assert_array_equal, got, want)


def test_second_call_does_not_recompile():
  inputs = draw(Case(3, 1, "SAME", (2, 2, 1, 2)))[:4]
  others = [2 * array for array in inputs]
  compiled = []

  def listen(name, *_, **__):
    if name == "/jax/core/compile/backend_compile_duration":
      compiled.append(name)

  op = partial(depthwise_conv_bn, activation="silu")
  jitted = jax.jit(partial(grads_of_sums, op))
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    for call in (jitted, op):
      call(*inputs)
      assert compiled
      compiled.clear()
      call(*others)
      assert not compiled
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


CASE = Case(3, 2, "SAME", (3, 4, 8, 2))  # one image a device


def on_devices(from_outside):
  """Make a function like `everything` on 8 devices, with replicated weights."""
  op = partial(depthwise_conv_bn, **CASE.settings)
  mesh = group_mesh(group_size=4)
  images, weights = P(None, None, ALL_DEVICES), (P(), P(), P())
  moments = Moments(*[P(ALL_DEVICES)] * 3)

  def own(x, filters, scale, offset):
    y, moments = op(x, filters, scale, offset)
    return y, jax.tree.map(lambda m: m[None], moments)

  def of_all(*args):
    return jax.shard_map(
      own,
      mesh=mesh,
      in_specs=(images, *weights),
      out_specs=(images, moments),
      check_vma=True,
    )(*args)

  def gradients_of_own(x, filters, scale, offset, dy, dmean, dm2):
    def loss(*args):
      y, moments = op(*args)
      sums = y * dy, dmean * moments.mean, dm2 * moments.m2
      return sum(jnp.sum(s) for s in sums)

    return jax.grad(loss, argnums=(0, 1, 2, 3))(x, filters, scale, offset)

  def inside(*args):
    return jax.shard_map(
      gradients_of_own,
      mesh=mesh,
      in_specs=(images, *weights, images, P(), P()),
      out_specs=(images, *weights),
      check_vma=True,
    )(*args)

  def outside(x, filters, scale, offset, dy, dmean, dm2):
    _, vjp = jax.vjp(of_all, x, filters, scale, offset)
    spread = [jnp.broadcast_to(d, (8, *d.shape)) for d in (dmean, dm2)]
    return vjp((dy, Moments(jnp.zeros(8), *spread)))

  return jax.jit(outside if from_outside else inside)


@pytest.mark.parametrize("from_outside", [False, True])
def test_gradients_of_replicated_weights_are_summed(from_outside):
  inputs = draw(CASE)
  names = ["dx", "dfilters", "dscale", "doffset"]

  def per_device(function):
    """Sum the weights' gradients over devices; concatenate dx."""

    def of_all(x, filters, scale, offset, dy, dmean, dm2):
      grads = []
      for device in range(8):
        own = np.s_[:, :, device : device + 1]
        result = function(x[own], filters, scale, offset, dy[own], dmean, dm2)
        grads.append([np.float64(result[name]) for name in names])
      dx, *weights = zip(*grads, strict=True)
      summed = [sum(w) for w in weights]
      return dict(zip(names, [np.concatenate(dx, 2), *summed], strict=True))

    return of_all

  reference = partial(plain, **CASE.settings)
  assert_accurate(
    dict(zip(names, on_devices(from_outside)(*inputs), strict=True)),
    per_device(jax.jit(partial(everything, reference, "HWNC")))(*inputs),
    per_device(partial(exact, **CASE.settings)),
    *inputs,
  )


@pytest.mark.parametrize("varying", range(4))
def test_any_one_argument_may_vary_over_devices(varying):
  # Types are enough: shard_map rejects out_specs that do not fit them.
  inputs = list(draw(CASE)[:4])
  specs = [P()] * 4
  specs[varying] = P(ALL_DEVICES)
  inputs[varying] = jnp.stack([inputs[varying]] * 8)
  op = partial(depthwise_conv_bn, activation="silu")

  def own(*args):
    args = [a[0] if i == varying else a for i, a in enumerate(args)]
    grads = list(grads_of_sums(op, *args))
    grads[varying] = grads[varying][None]
    return grads

  grads = jax.eval_shape(
    jax.shard_map(
      own, mesh=group_mesh(group_size=4), in_specs=tuple(specs), out_specs=specs
    ),
    *inputs,
  )
  assert [g.shape for g in grads] == [x.shape for x in inputs]


def shapes(x=(4, 4, 2, 3), filters=(3, 3, 3), x_dtype=F32, filters_dtype=F32):
  return jnp.ones(x, x_dtype), jnp.ones(filters, filters_dtype)


@pytest.mark.parametrize(
  "inputs, kwargs, message",
  [
    (shapes(x=(4, 4, 3)), {}, "4 dimensions (HWNC), got shape (4, 4, 3)"),
    (
      shapes(filters=(3, 3, 4)),
      {},
      "(kh, kw, 3, m) for x of shape (4, 4, 2, 3) in HWNC, got (3, 3, 4)",
    ),
    (
      shapes(),
      {"layout": "HWCN"},
      "(kh, kw, 2, m) for x of shape (4, 4, 2, 3) in HWCN, got (3, 3, 3)",
    ),
    (shapes(filters=(3, 3, 1, 3)), {}, "got (3, 3, 1, 3)"),
    (shapes(filters=(0, 3, 3)), {}, "filters are empty, shape (0, 3, 3)"),
    (shapes(x_dtype=jnp.int32), {}, "x must be of a floating dtype, got int32"),
    (shapes(filters_dtype=jnp.int32), {}, "must be floating, got int32"),
    (shapes(x_dtype=BF16), {}, "filters are float32 but x is bfloat16"),
    (shapes(x=(4, 0, 2, 3)), {}, "x is empty, shape (4, 0, 2, 3)"),
    (shapes(), {"stride": 3}, "stride must be 1, 2 or a pair of them, got 3"),
    (shapes(), {"stride": (1, 2, 1)}, "a pair of them, got (1, 2, 1)"),
    (shapes(), {"dilation": 0}, "dilation must be a positive integer"),
    (shapes(), {"dilation": (1, 1.5)}, "pair of them, got (1, 1.5)"),
    (shapes(), {"padding": "FULL"}, "(left, right)), got 'FULL'"),
    (shapes(), {"padding": (1, 1)}, "(left, right)), got (1, 1)"),
    (shapes(), {"padding": -1}, "integer of at least 0 or ((top, bottom)"),
    (shapes(), {"padding": [(0, 1), (0, -1)]}, "got ((0, 1), (0, -1))"),
    (
      shapes(),
      {"padding": 0, "dilation": 2},
      "with padding 0 is smaller than the filters (3, 3, 3) with dilation 2",
    ),
    (
      shapes(x=(4, 2, 2, 3)),
      {"padding": "VALID"},
      "x of shape (4, 2, 2, 3) with padding 'VALID' is smaller than the "
      "filters (3, 3, 3) with dilation 1",
    ),
    (shapes(), {"layout": "NCHW"}, "HWCN or NHWC, got 'NCHW'"),
    (shapes(), {"activation": "swish"}, "'gelu_tanh' or None, got 'swish'"),
    (shapes(), {"scale": jnp.ones(4)}, "scale must have shape (3,) for x"),
    (shapes(), {"offset": jnp.ones((1, 3))}, "got (1, 3)"),
    (
      shapes(),
      {"scale": jnp.ones(3, BF16)},
      "scale must be float32, got bfloat16",
    ),
    (shapes(), {"implementation": "cuda"}, "unknown implementation 'cuda'"),
    (shapes(), {"bands": 2}, "3 channels of x (4, 4, 2, 3) do not divide"),
    (
      shapes(filters=(3, 3, 1)),
      {"bands": 3, "padding": "VALID"},
      "bands need padding by which y has h / stride rows, got padding 'VALID'",
    ),
    (
      shapes(x=(3, 4, 2, 3), filters=(3, 3, 1)),
      {"bands": 3, "stride": 2},
      "bands of 3 rows are too short, or not of whole strides",
    ),
  ],
)
def test_mistakes_are_named(inputs, kwargs, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    depthwise_conv_bn(*inputs, **kwargs)


def test_a_named_implementation_does_not_fall_back():
  op = partial(depthwise_conv_bn, *shapes(), padding="VALID")
  with pytest.raises(
    NotImplementedError, match="does not support padding 'VALID'"
  ):
    op(implementation="pallas_tpu")
  y, _ = op(implementation=("pallas_tpu", "xla"))
  assert y.shape == (2, 2, 2, 3)
