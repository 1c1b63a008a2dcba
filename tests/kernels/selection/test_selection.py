import re

import jax.numpy as jnp
import pytest
from support.abstract_tpu import on

from podscale.kernels import default_implementation
from podscale.kernels.selection.selection import Policy, Selection, run, select

XLA_BEHIND_KERNEL = ("pallas_tpu", "xla")


def plan(size):
  if size > 8:
    raise NotImplementedError(f"no {size} channels, but up to 8")
  return size


def prefer(chip, size):
  return ("pallas_tpu" if size > 4 else "xla"), f"measured with {size}, {chip}"


POLICY = Policy("op", plan, prefer, lambda plan: {"forward": plan})
NO_KERNEL = Policy("op")


def names(selection):
  return selection.on_tpu, selection.elsewhere


@pytest.mark.parametrize("as_argument", [True, False])
@pytest.mark.parametrize("chip", [None, "v5e"])
@pytest.mark.parametrize(
  ("requested", "on_tpu", "elsewhere"),
  [
    ("xla", "xla", "xla"),
    ("pallas_tpu", "pallas_tpu", "pallas_tpu"),
    (["pallas_tpu"], "pallas_tpu", "pallas_tpu"),
    (XLA_BEHIND_KERNEL, "pallas_tpu", "xla"),
    (("xla", "pallas_tpu"), "xla", "xla"),
  ],
)
def test_a_request_is_met(chip, requested, on_tpu, elsewhere, as_argument):
  def selected():
    if as_argument:
      return select(POLICY, requested, 1)
    with default_implementation(requested):
      return select(POLICY, None, 1)

  if chip is None:
    selection = selected()
    assert selection.implementation == elsewhere
  else:
    with on(chip):
      selection = selected()
    assert selection.implementation == on_tpu
  assert names(selection) == (on_tpu, elsewhere)
  given = (requested,) if isinstance(requested, str) else tuple(requested)
  assert selection.requested == given
  assert selection.blocks == ({"forward": 1} if on_tpu != "xla" else {})


@pytest.mark.parametrize(
  ("chip", "size", "implementation", "reason"),
  [
    (None, 5, "xla", "JAX compiles for no TPU"),
    ("v5e", 4, "xla", "measured with 4, v5e"),
    ("v5e", 5, "pallas_tpu", "measured with 5, v5e"),
    ("v5e", 9, "xla", "no 9 channels, but up to 8"),
  ],
)
def test_without_a_request_the_op_chooses(chip, size, implementation, reason):
  if chip is None:
    selection = select(POLICY, None, size)
  else:
    with on(chip):
      selection = select(POLICY, None, size)
  assert selection.implementation == implementation
  assert (selection.elsewhere, selection.requested) == ("xla", None)
  assert selection.chip == (chip or "unknown")
  assert selection.reason == reason


def test_the_next_is_taken_when_one_cannot_run():
  selection = select(POLICY, XLA_BEHIND_KERNEL, 9)
  assert names(selection) == ("xla", "xla")
  assert selection.reason == "requested; no 9 channels, but up to 8"


def test_the_next_is_taken_when_the_op_lacks_one():
  selection = select(NO_KERNEL, XLA_BEHIND_KERNEL)
  assert names(selection) == ("xla", "xla")


@pytest.mark.parametrize("requested", ["pallas_tpu", ("pallas_tpu",)])
def test_a_named_one_does_not_fall_back(requested):
  with pytest.raises(NotImplementedError, match="^no 9 channels, but up to 8$"):
    select(POLICY, requested, 9)


def test_a_named_one_that_the_op_lacks():
  message = "op has no 'pallas_tpu' implementation; it has: xla"
  with pytest.raises(NotImplementedError, match=f"^{message}$"):
    select(NO_KERNEL, "pallas_tpu")


def test_all_reasons_are_raised_together():
  with pytest.raises(ExceptionGroup) as caught:
    select(POLICY, ("pallas_tpu", "pallas_tpu"), 9)
  assert caught.value.message == "op: no implementation can do this"
  reasons = [str(error) for error in caught.value.exceptions]
  assert reasons == ["no 9 channels, but up to 8"] * 2


@pytest.mark.parametrize("requested", [None, XLA_BEHIND_KERNEL])
def test_a_mistake_of_the_caller_is_not_retried(requested):
  def wrong(*_):
    raise ValueError("your shapes")

  policy = Policy("op", wrong, prefer)
  with on("v5e"), pytest.raises(ValueError, match="^your shapes$"):
    select(policy, requested, 5)


@pytest.mark.parametrize(
  ("requested", "message"),
  [
    ("xal", "unknown implementation 'xal'; did you mean 'xla'?"),
    (("xla", "pallas"), "unknown implementation 'pallas'; did you mean"),
    ("cuda", "did you mean 'xla' or 'pallas_tpu'?"),
    (("xla", None), "unknown implementation None"),
    ((), "implementation is (); expected 'xla' or 'pallas_tpu', or a list of"),
    (3, "implementation is 3; expected 'xla' or"),
    (b"xla", "implementation is b'xla'; expected"),
    ({"xla"}, "implementation is {'xla'}; expected"),  # has no order
  ],
)
def test_unknown_names_are_refused(requested, message):
  # Even when the first would have done: a typo is not left for later.
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    select(POLICY, requested, 1)
  assert str(error.value).startswith("op: ")
  with (
    pytest.raises(ValueError, match=re.escape(message)) as error,
    default_implementation(requested),
  ):
    pytest.fail("the context was entered")
  assert str(error.value).startswith("default_implementation: ")


def test_an_inner_context_replaces_an_outer_one():
  seen = []
  with default_implementation("pallas_tpu"):
    with default_implementation("xla"):
      seen.append(select(POLICY, None, 1).on_tpu)
      seen.append(select(POLICY, "pallas_tpu", 1).on_tpu)
      with default_implementation(None):
        seen.append(select(POLICY, None, 1).requested)
    seen.append(select(POLICY, None, 1).on_tpu)
  seen.append(select(POLICY, None, 1).on_tpu)
  assert seen == ["xla", "pallas_tpu", None, "pallas_tpu", "xla"]


def test_a_context_ends_with_an_exception():
  with pytest.raises(KeyError), default_implementation("pallas_tpu"):
    raise KeyError
  assert select(POLICY, None, 1).on_tpu == "xla"


@pytest.mark.parametrize(
  ("on_tpu", "elsewhere", "result"),
  [
    ("xla", "xla", 2),
    ("pallas_tpu", "pallas_tpu", 3),
    ("pallas_tpu", "xla", 2),
  ],
)
def test_the_function_of_the_platform_runs(on_tpu, elsewhere, result):
  selection = Selection(on_tpu, elsewhere, "unknown", "")
  functions = {"xla": lambda x: 2 * x, "pallas_tpu": lambda x: 3 * x}
  assert run(selection, functions, jnp.float32(1)) == result


def test_other_platforms_may_have_another_function():
  selection = Selection("xla", "xla", "unknown", "")
  functions = {"xla": lambda x: 2 * x}
  other = {"xla": lambda x: 5 * x}
  assert run(selection, functions, jnp.float32(1), elsewhere=other) == 5
