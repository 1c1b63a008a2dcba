"""The one place that selects which implementation of an op runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jax import lax

from ..tpu.chip import target_chip
from .requested import Implementation, Requested, requested_names


@dataclass(frozen=True)
class Selection:
  """Implementations that run for one call of an op, and the reason.

  Attributes:
    on_tpu: Implementation on TPUs.
    elsewhere: Implementation on other platforms.
    chip: TPU generation that is compiled for; 'unknown' without a TPU.
    reason: Reason for the selection.
    requested: Names that the argument or the context requested; None where the
      op chose.
    blocks: Block sizes by kernel name; empty for 'xla'.
    plan: Plan of the TPU kernels; None where they do not run.
  """

  on_tpu: Implementation
  elsewhere: Implementation
  chip: str
  reason: str
  requested: tuple[Implementation, ...] | None = None
  blocks: Mapping[str, Any] = field(default_factory=dict, hash=False)
  plan: Any = field(default=None, repr=False)

  @property
  def implementation(self) -> Implementation:
    """Implementation that runs on `chip`, or elsewhere if it is 'unknown'."""
    return self.elsewhere if self.chip == "unknown" else self.on_tpu


@dataclass(frozen=True)
class Policy:
  """Rules by which one op selects its implementation.

  Every op has 'xla'; the rules are those of 'pallas_tpu'. `plan` and `prefer`
  are functions of the arguments that the op passes to `select`.

  Attributes:
    op: Name of the op, for messages.
    plan: Function to the plan of the TPU kernels. Raises NotImplementedError
      with the reason why the kernels cannot run. None for an op without any.
    prefer: Function of the chip, and of the same arguments, to the
      implementation to choose there and the reason.
    blocks: Function of the plan to the block sizes by kernel name.
  """

  op: str
  plan: Callable[..., Any] | None = None
  prefer: Callable[..., tuple[Implementation, str]] | None = None
  blocks: Callable[[Any], Mapping[str, Any]] = lambda _: {}


def select(policy: Policy, requested: Requested, *args: Any) -> Selection:
  """Select the implementations of a call.

  Args:
    policy: Rules of the op.
    requested: One name, which never falls back; a sequence, of which the first
      that can run is taken, on TPUs and elsewhere; or None for the request of
      `default_implementation`, and without one for the op's choice.
    *args: Arguments of the policy's functions.

  Returns:
    The `Selection`.

  Raises:
    ValueError: A name is unknown or the sequence is empty.
    NotImplementedError: The only requested implementation cannot run.
    ExceptionGroup: Several are requested and none can run.
  """
  names = requested_names(policy.op, requested)
  if names is None:
    return _choose(policy, *args)
  chip = target_chip().name
  refusals: list[NotImplementedError] = []
  for name in names:
    if name == "xla":
      reason = "; ".join(["requested", *map(str, refusals)])
      return Selection("xla", "xla", chip, reason, names)
    try:
      plan = _plan(policy, *args)
    except NotImplementedError as refusal:
      refusals.append(refusal)
    else:
      elsewhere: Implementation = "xla" if "xla" in names else name
      blocks = policy.blocks(plan)
      return Selection(name, elsewhere, chip, "requested", names, blocks, plan)
  if len(refusals) == 1:
    raise refusals[0]
  raise ExceptionGroup(f"{policy.op}: no implementation can do this", refusals)


def the_only_one() -> Selection:
  """Select XLA for an op that has no other implementation."""
  reason = "the op has no other implementation"
  return Selection("xla", "xla", target_chip().name, reason)


def run(
  selection: Selection,
  implementations: Mapping[str, Callable[..., Any]],
  *args: Any,
  elsewhere: Mapping[str, Callable[..., Any]] | None = None,
) -> Any:
  """Run the selected implementation of the platform that is lowered for.

  Args:
    selection: Selection for this call.
    implementations: Functions of `args` by name.
    *args: Pytrees of arrays.
    elsewhere: Functions to take instead on other platforms than TPUs.

  Returns:
    Result of the function.
  """
  on_tpu = implementations[selection.on_tpu]
  default = {**implementations, **(elsewhere or {})}[selection.elsewhere]
  if on_tpu is default:
    return on_tpu(*args)
  return lax.platform_dependent(*args, tpu=on_tpu, default=default)


def _choose(policy: Policy, *args) -> Selection:
  """Select as the policy prefers, where nothing is requested."""
  if policy.prefer is None:
    return the_only_one()
  chip = target_chip().name
  if chip == "unknown":
    return Selection("xla", "xla", chip, "JAX compiles for no TPU")
  preferred, reason = policy.prefer(chip, *args)
  if preferred == "pallas_tpu":
    try:
      plan = _plan(policy, *args)
    except NotImplementedError as refusal:
      reason = str(refusal)
    else:
      blocks = policy.blocks(plan)
      return Selection("pallas_tpu", "xla", chip, reason, None, blocks, plan)
  return Selection("xla", "xla", chip, reason)


def _plan(policy: Policy, *args) -> Any:
  if policy.plan is None:
    raise NotImplementedError(
      f"{policy.op} has no 'pallas_tpu' implementation; it has: xla"
    )
  return policy.plan(*args)
