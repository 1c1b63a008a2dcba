"""Ops with a kernel for a part of them: what runs on a TPU and elsewhere."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..tpu.chip import target_chip
from ..tpu.pixels import Plan
from .dispatch import Implementation, Requested, dispatch, or_default
from .selection import Choice

# Where whole steps were judged, in bfloat16, and were ahead of XLA's; see
# bench/results/step.md.
_AHEAD_ON = ("v5e", "v6e")


class Forms(NamedTuple):
  """Which implementations run.

  Attributes:
    on_tpu: On a TPU.
    elsewhere: On other platforms.
    plan: Of the kernel, where it may run.
  """

  on_tpu: Implementation
  elsewhere: Implementation
  plan: Plan | None = None


def choose_forms(
  op: str,
  implementation: Requested,
  plan: Callable[..., Plan],
  x: jax.Array,
  *others: Any,
) -> Forms:
  """Those that are requested, or the best there are.

  Args:
    op: The op's name, for messages.
    implementation: What is requested.
    plan: Of the kernel, given x and the others.
    x: What the op reads.
    *others: As plan has them.

  Raises:
    ValueError: a name is not an implementation's.
    NotImplementedError: the one implementation asked cannot do this.
    ExceptionGroup: several were asked and none can.
  """
  requested = or_default(implementation)
  if requested is None:
    planned, _ = _decide(plan, x, *others)
    return Forms("pallas_tpu" if planned else "xla", "xla", planned)
  implementations: dict[str, Callable[[], Forms]] = {
    "xla": lambda: Forms("xla", "xla"),
    "pallas_tpu": lambda: Forms("pallas_tpu", "pallas_tpu", plan(x, *others)),
  }
  return dispatch(op, implementations, requested)


def describe_forms(
  plan: Callable[..., Plan], x: jax.Array, *others: Any
) -> Choice:
  """What `choose_forms` chooses where nothing is requested, and why."""
  planned, reason = _decide(plan, x, *others)
  name = target_chip().name
  if planned is None:
    return Choice("xla", name, reason, {})
  return Choice("pallas_tpu", name, reason, {"backward": planned.pixels})


def run(
  forms: Forms,
  implementations: Mapping[Implementation, Callable[..., Any]],
  fixed: Any,
  *arrays: Any,
) -> Any:
  """Runs the part that has a kernel, in the form of the platform.

  Args:
    forms: As chosen.
    implementations: Functions of `fixed` and the arrays; that of the kernel
      takes the plan as well.
    fixed: What is known when it is traced.
    *arrays: Trees of arrays.
  """

  def form(name: Implementation) -> Callable[..., Any]:
    function = partial(implementations[name], fixed)
    return partial(function, plan=forms.plan) if name != "xla" else function

  if forms.on_tpu == forms.elsewhere:
    return form(forms.on_tpu)(*arrays)
  return lax.platform_dependent(
    *arrays, tpu=form(forms.on_tpu), default=form(forms.elsewhere)
  )


def _decide(plan, x, *others) -> tuple[Plan | None, str]:
  chip = target_chip().name
  if chip == "unknown":
    return None, "no TPU is compiled for"
  try:
    planned = plan(x, *others)
  except NotImplementedError as error:
    return None, str(error)
  if chip not in _AHEAD_ON:
    return None, f"the kernel was not measured ahead of XLA on {chip}"
  if x.dtype != jnp.bfloat16:
    return None, f"the kernel was measured in bfloat16, x is {x.dtype}"
  return planned, f"measured ahead of XLA on {chip}"
