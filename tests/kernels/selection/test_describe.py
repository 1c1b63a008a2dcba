"""`describe` against lowered code: every op, request, platform and chip."""

import contextlib
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
from support.abstract_tpu import KINDS, on

from podscale import kernels
from podscale.kernels import default_implementation, describe
from podscale.kernels.describe import _DESCRIPTIONS

F32, BF16 = jnp.float32, jnp.bfloat16
REQUESTS = [None, "xla", "pallas_tpu", ("pallas_tpu", "xla")]
KERNEL_CALL = "tpu_custom_call"  # the target of Mosaic's calls


def of(*shape, dtype=BF16):
  return jax.ShapeDtypeStruct(shape, dtype)


class Case(NamedTuple):
  """An op with arguments for which its kernels, if any, can run.

  `differentiated`: the kernel is one of the backward pass.
  `requests`: False for an op without an argument `implementation`.
  """

  op: Any
  arrays: tuple
  static: dict[str, Any] = {}
  behind: tuple = ()
  differentiated: bool = False
  requests: bool = True


def gate(slope, mean):
  return (slope * mean).astype(BF16)


def float32(*shape):
  return of(*shape, dtype=F32)


TREE = {"bias": float32(7), "kernel": float32(3, 100)}
PACKING = kernels.pack_like(TREE)
PACKED = kernels.Packed(float32(PACKING.rows, 128), PACKING)
RATES = {"learning_rate": 1.0, "weight_decay": 0.1}
CASES = {
  "depthwise": Case(
    kernels.depthwise_conv_bn, (of(4, 4, 16, 48), of(3, 3, 48))
  ),
  "depthwise, few lanes": Case(
    kernels.depthwise_conv_bn, (of(4, 4, 16, 16), of(3, 3, 16))
  ),
  "depthwise, too large": Case(
    kernels.depthwise_conv_bn, (of(9, 9, 16, 48), of(9, 9, 48))
  ),
  "pointwise": Case(
    kernels.pointwise_conv_bn,
    (of(4, 4, 16, 8), of(8, 16)),
    differentiated=True,
  ),
  "pointwise, float32": Case(
    kernels.pointwise_conv_bn,
    (float32(4, 4, 16, 8), float32(8, 16)),
    differentiated=True,
  ),
  "gated": Case(
    kernels.gated_pointwise_conv_bn,
    (of(4, 4, 16, 16), of(16, 8), float32(16), float32(16)),
    behind=(gate, jnp.ones(())),
    differentiated=True,
  ),
  "batch_norm": Case(
    kernels.batch_norm, (of(4, 4, 16, 8), float32(8), float32(8))
  ),
  "batch_norm_affine": Case(
    kernels.batch_norm_affine,
    (kernels.Moments(float32(), *[float32(8)] * 2), float32(8), float32(8)),
    requests=False,
  ),
  "channel_moments": Case(
    kernels.channel_moments, (of(4, 4, 16, 8),), requests=False
  ),
  "leaf_norms": Case(kernels.leaf_norms, (PACKED,)),
  "lars, packed": Case(kernels.lars_update, (PACKED,) * 3, RATES),
  "lars, trees": Case(kernels.lars_update, (TREE,) * 3, RATES),
  "pack": Case(PACKING.pack, (TREE,)),
}


def ask(case, requested, in_context):
  """Context and keyword arguments of a request."""
  if in_context:
    return default_implementation(requested), {}
  arguments = {"implementation": requested} if case.requests else {}
  return contextlib.nullcontext(), arguments


def lower(case, platform, **request):
  def call(*arrays):
    op = partial(case.op, **case.static, **request)
    if not case.differentiated:
      return op(*arrays, *case.behind)
    y, vjp = jax.vjp(lambda *arrays: op(*arrays, *case.behind), *arrays)
    return y, vjp(jax.tree.map(jnp.ones_like, y))

  traced = jax.jit(call).trace(*case.arrays)
  return traced.lower(lowering_platforms=(platform,)).as_text()


def check(case, requested, in_context, platform):
  """Compares `describe` with what is lowered, errors included."""
  context, request = ask(case, requested, in_context)
  with context:
    try:
      selection = describe(
        case.op, *case.arrays, *case.behind, **case.static, **request
      )
    except NotImplementedError as refusal:
      with pytest.raises(NotImplementedError) as raised:
        lower(case, platform, **request)
      assert str(raised.value) == str(refusal)
      return None
    if selection.implementation == "pallas_tpu" and platform != "tpu":
      # A single name does not fall back.
      with pytest.raises(ValueError, match=r"interpret mode|gpu lowering"):
        lower(case, platform, **request)
    else:
      kernel = KERNEL_CALL in lower(case, platform, **request)
      assert selection.implementation == ("pallas_tpu" if kernel else "xla")
  return selection


@pytest.mark.parametrize("requested", REQUESTS, ids=str)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("chip", KINDS)
def test_on_chips(chip, name, requested):
  # By context too on one chip: what differs between chips is the policies.
  case = CASES[name]
  with on(chip):
    selection = check(case, requested, False, "tpu")
    if chip == "v5e":
      check(case, requested, True, "tpu")
  if selection is not None:
    assert selection.chip == chip


@pytest.mark.parametrize("in_context", [False, True])
@pytest.mark.parametrize("requested", REQUESTS, ids=str)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_elsewhere(platform, name, requested, in_context):
  selection = check(CASES[name], requested, in_context, platform)
  if selection is not None:
    assert selection.chip == "unknown"


@pytest.mark.parametrize("name", CASES)
def test_the_implementation_elsewhere_is_known_where_a_tpu_is(name):
  """Code for several platforms: what is lowered for a CPU beside a TPU."""
  case = CASES[name]
  with on("v5e"):
    assert (
      describe(case.op, *case.arrays, *case.behind, **case.static).elsewhere
      == "xla"
    )
    assert KERNEL_CALL not in lower(case, "cpu")


def test_all_public_ops_are_covered():
  ops = {getattr(case.op, "__func__", case.op) for case in CASES.values()}
  assert ops == set(_DESCRIPTIONS)
  public = {
    value
    for name in kernels.__all__
    if "Args:" in ((value := getattr(kernels, name)).__doc__ or "")
    and "Returns:" in value.__doc__
  }
  helpers = {
    *("change_bands", "from_bands", "over_bands", "to_bands"),
    *("describe", "pack_like"),
  }
  assert public - {getattr(kernels, name) for name in helpers} <= ops


def test_a_context_behind_the_first_call_is_too_late():
  arrays = CASES["leaf_norms"].arrays

  @jax.jit
  def norms(packed):
    return kernels.leaf_norms(packed)

  def lowered():
    return norms.trace(*arrays).lower(lowering_platforms=("tpu",)).as_text()

  with on("v5e"):
    assert KERNEL_CALL in lowered()
    with default_implementation("xla"):
      assert KERNEL_CALL in lowered()
      jax.clear_caches()
      assert KERNEL_CALL not in lowered()


@pytest.mark.parametrize("name", [n for n in CASES if CASES[n].requests])
def test_unknown_names_get_a_suggestion(name):
  case = CASES[name]
  call = (*case.arrays, *case.behind)
  with pytest.raises(ValueError, match="did you mean 'pallas_tpu'") as told:
    describe(case.op, *call, **case.static, implementation="palas_tpu")
  with pytest.raises(ValueError) as raised:
    lower(case, "cpu", implementation="palas_tpu")
  assert str(told.value) == str(raised.value)


def test_an_op_that_is_none_is_named():
  with pytest.raises(ValueError, match=r"not an op of podscale\.kernels; exp"):
    describe(jnp.sum, jnp.ones(3))
  with pytest.raises(TypeError, match="unexpected keyword argument 'strides'"):
    describe(*CASES["depthwise"][:1], *CASES["depthwise"].arrays, strides=1)
  with pytest.raises(
    TypeError, match=r"describe\(depthwise_conv_bn\): missing .* 'x'"
  ):
    describe(*CASES["depthwise"][:1])
