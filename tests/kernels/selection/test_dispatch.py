import re

import pytest

from podscale.kernels.selection.dispatch import dispatch


def xla(x, y=1):
  return "xla", x, y


def pallas_tpu(x, y=1):
  return "pallas_tpu", x, y


def cannot(*_, **__):
  raise NotImplementedError("too many channels")


def wrong(*_, **__):
  raise ValueError("your shapes")


BOTH = {"pallas_tpu": pallas_tpu, "xla": xla}


@pytest.mark.parametrize(
  "requested, ran",
  [
    (None, "pallas_tpu"),
    ("xla", "xla"),
    ("pallas_tpu", "pallas_tpu"),
    (("xla", "pallas_tpu"), "xla"),
    (["pallas_tpu"], "pallas_tpu"),
  ],
)
def test_the_first_that_was_asked_for_runs(requested, ran):
  assert dispatch("op", BOTH, requested, 2, y=3) == (ran, 2, 3)


@pytest.mark.parametrize("requested", [None, ("pallas_tpu", "xla")])
def test_the_next_is_tried_when_one_cannot(requested):
  implementations = {"pallas_tpu": cannot, "xla": xla}
  assert dispatch("op", implementations, requested, 2) == ("xla", 2, 1)


def test_the_next_is_tried_when_the_op_lacks_one():
  requested = ("pallas_tpu", "xla")
  assert dispatch("op", {"xla": xla}, requested, 2) == ("xla", 2, 1)


@pytest.mark.parametrize("requested", ["pallas_tpu", ("pallas_tpu",)])
def test_a_named_one_does_not_fall_back(requested):
  implementations = {"pallas_tpu": cannot, "xla": xla}
  with pytest.raises(NotImplementedError, match="^too many channels$"):
    dispatch("op", implementations, requested, 2)


def test_a_named_one_that_the_op_lacks():
  message = "op has no 'pallas_tpu' implementation; it has: xla"
  with pytest.raises(NotImplementedError, match=f"^{message}$"):
    dispatch("op", {"xla": xla}, "pallas_tpu", 2)


def test_all_reasons_are_raised_together():
  implementations = {"pallas_tpu": cannot}
  with pytest.raises(ExceptionGroup) as caught:
    dispatch("op", implementations, ("xla", "pallas_tpu"), 2)
  assert caught.value.message == "op: no implementation can do this"
  assert [str(error) for error in caught.value.exceptions] == [
    "op has no 'xla' implementation; it has: pallas_tpu",
    "too many channels",
  ]


@pytest.mark.parametrize("requested", [None, ("pallas_tpu", "xla")])
def test_a_mistake_of_the_caller_is_not_retried(requested):
  implementations = {"pallas_tpu": wrong, "xla": xla}
  with pytest.raises(ValueError, match="^your shapes$"):
    dispatch("op", implementations, requested, 2)


@pytest.mark.parametrize(
  "requested, message",
  [
    ("xal", "op: unknown implementation 'xal'; did you mean 'xla'?"),
    (("xla", "pallas"), "unknown implementation 'pallas'; did you mean"),
    ("cuda", "did you mean 'xla' or 'pallas_tpu'?"),
    (("xla", None), "unknown implementation None"),
    ((), "op: implementation is an empty sequence"),
  ],
)
def test_unknown_names_get_a_suggestion(requested, message):
  # Even when the first would have done: a typo is not left for later.
  with pytest.raises(ValueError, match=re.escape(message)):
    dispatch("op", BOTH, requested, 2)
