"""Estimates of a whole training step on a TPU slice.

The time of the cores comes from the compiled code, see `static`. The time of
the collectives comes from `collective_cost`; collectives run one after the
other and never beside other work.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from ... import kernels
from ...collectives.tiles import tile_shape
from ...collectives.torus import slice_sides
from ...kernels.surface import Requested
from ...train.settings.config import Config
from ...train.settings.presets import get_preset
from ..chips import CHIPS, Chip
from ..compiled.hlo import KINDS, Instruction, read_instructions
from .collective_cost import Slice, all_reduce_us, one_way_us, ring_us
from .implementations import StepImplementation
from .pod_step import lower_plain_step, lower_step
from .routine_rows import TOP, longest_first, routine_row
from .static import Estimate, compiler
from .static.estimate import estimate_compilation
from .static.kept import cache_folder, kept_compilation

_REQUESTED: dict[StepImplementation, Requested] = {
  "best": None,
  "xla": "xla",
  "pallas_tpu": ("pallas_tpu", "xla"),
}


def pod_config(model: str, batch_size: int) -> Config:
  """Return the recipe of `b5-64k`, LARS and its schedule, for any member.

  The learning rate ends at 0, which is below the peak of any batch size.

  Args:
    model: Member of the family.
    batch_size: Images in a step, on all devices.
  """
  recipe = get_preset("b5-64k")
  return dataclasses.replace(
    recipe,
    model=get_preset(model).model,
    schedule=dataclasses.replace(recipe.schedule, end_learning_rate=0.0),
    batch_size=batch_size,
  )


class Movement(NamedTuple):
  """A collective of a compiled program.

  Attributes:
    op: XLA's name, such as "all-reduce".
    bytes: Size of the result.
    group: Devices in a group; 0 for all.
  """

  op: str
  bytes: int
  group: int

  def us(self, slice_: Slice) -> float:
    """Estimate the time on a slice; see `collective_cost`."""
    group = self.group or slice_.devices
    if self.op in ("reduce-scatter", "collective-permute"):
      return one_way_us(self.bytes * group, group, slice_)
    if self.op != "all-reduce":
      return one_way_us(self.bytes, group, slice_)
    if group == slice_.devices:
      return all_reduce_us(self.bytes, slice_)
    tile = tile_shape(slice_.sides, slice_.cores, group)
    # A group that no box holds is priced as one row of chips.
    sides = tile or (-(-group // slice_.cores),)
    cores = min(group, slice_.cores)
    return ring_us(self.bytes, Slice(slice_.chip, sides, cores))


class Step(NamedTuple):
  """A compiled step.

  Attributes:
    estimate: Estimated cost on a core.
    instructions: Instructions of the HLO text, by name.
    movements: Collectives.
  """

  estimate: Estimate
  instructions: dict[str, Instruction]
  movements: list[Movement]

  @property
  def kinds(self) -> dict[str, float]:
    """Microseconds of the core by kind of routine, and between routines."""
    kinds = dict.fromkeys(KINDS, 0.0)
    for routine in self.estimate.routines:
      kinds[self.kind(routine.name)] += routine.microseconds
    rest = self.estimate.microseconds - sum(kinds.values())
    return {**kinds, "between kernels": rest}

  @property
  def core_us(self) -> float:
    """Microseconds of the core outside collectives; `Movement.us` has those."""
    return self.estimate.microseconds - self.kinds["collectives"]

  def kind(self, routine: str) -> str:
    """Return the kind of a routine, one of `KINDS`."""
    known = self.instructions.get(routine)
    return known.kind if known else "normalisation"


def compiled_step(
  config: Config,
  *,
  chip: str,
  devices: Sequence[jax.Device],
  implementation: StepImplementation,
) -> Step:
  """Compile a training step and estimate its cost on a core.

  The compiled program is kept in the user's cache folder, so that the same step
  is not compiled again.

  Args:
    config: Settings of the run; `batch_size` counts the images of all devices.
    chip: Chip of the devices, one of `CHIPS`.
    devices: All devices of a slice.
    implementation: Implementation of the step.

  Raises:
    UsageError: The step does not fit in HBM, or libtpu is missing.
  """
  lowered = _lowered(config, devices, implementation)
  with kept_compilation(lowered, cache_folder(), chip) as compilation:
    return read_step(estimate_compilation(compilation, CHIPS[chip]))


def read_step(estimate: Estimate) -> Step:
  """Find the instructions and collectives of an estimated program."""
  instructions = read_instructions(estimate.hlo)
  movements = [
    Movement(x.collective, x.bytes, x.group_size)
    for x in instructions.values()
    if x.collective
  ]
  return Step(estimate, instructions, movements)


def estimate_step(
  config: Config,
  *,
  chip: str,
  devices: Sequence[jax.Device],
  implementation: StepImplementation,
) -> dict[str, Any]:
  """Estimate a training step; takes the arguments of `compiled_step`.

  Returns:
    `step_us` and its two terms, `core_us` and `collective_us`;
    `images_per_s_per_core`; `hbm_bytes` moved; `peak_bytes` taken and `of_hbm`,
    that as a share of the core's HBM; `collectives`, their `count` and `bytes`;
    `kinds`, microseconds by kind of routine; `top`, the routines that take
    longest; `compile_s`; and `failed`, the routines for which the compiler's
    own estimate is used.
  """
  step = compiled_step(
    config, chip=chip, devices=devices, implementation=implementation
  )
  estimate, movements = step.estimate, step.movements
  slice_ = slice_of(CHIPS[chip], devices)
  collective_us = sum(x.us(slice_) for x in movements)
  step_us = step.core_us + collective_us
  images = config.batch_size / len(devices)
  hbm_bytes = devices[0].num_cores * CHIPS[chip].hbm_gib * 2**30
  return {
    "implementation": implementation,
    "step_us": step_us,
    "core_us": step.core_us,
    "collective_us": collective_us,
    "images_per_s_per_core": images / step_us * 1e6,
    "hbm_bytes": estimate.hbm_bytes,
    "peak_bytes": estimate.peak_bytes,
    "of_hbm": estimate.peak_bytes / hbm_bytes,
    "collectives": {
      "count": len(movements),
      "bytes": sum(x.bytes for x in movements),
    },
    "kinds": {**step.kinds, "collectives": collective_us},
    "top": _top(step),
    "compile_s": estimate.compile_s,
    "compiler": compiler(),
    "failed": [note for note in estimate.unmodelled if "FAILED" in note],
  }


def slice_of(chip: Chip, devices: Sequence[jax.Device]) -> Slice:
  """Describe a whole slice for the cost model."""
  sides, cores = slice_sides(devices)
  return Slice(chip, sides, cores)


def _lowered(
  config: Config,
  devices: Sequence[jax.Device],
  implementation: StepImplementation,
) -> jax.stages.Lowered:
  if implementation == "plain":
    return lower_plain_step(config, devices)
  with kernels.default_implementation(_REQUESTED[implementation]):
    return lower_step(config, devices)


def _top(step: Step) -> list[dict[str, Any]]:
  return [
    {
      **routine_row(routine),
      "kind": step.kind(routine.name),
      "from": _origin(step.instructions.get(routine.name)),
    }
    for routine in longest_first(step.estimate.routines)[:TOP]
  ]


def _origin(instruction: Instruction | None) -> str:
  """Return the last three scopes of an instruction's name."""
  if instruction is None:
    return ""
  return "/".join(instruction.op_name.split("/")[-3:])
