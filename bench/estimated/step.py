"""A whole training step on a TPU slice that is not there: ESTIMATES.

What the cores do is judged by the compiled code, see `static`; what crosses
devices takes what `collectives.cost` says, one collective after the other and
none beside other work.
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
from .collective_cost import Slice, all_reduce_us, one_way_us, ring_us
from .hlo import KINDS, Instruction, read_instructions
from .kernel_rows import TOP, kernel_row, longest_first
from .pod_step import lower_plain_step, lower_step
from .static import CHIPS, Judged, compiler, judge_lowered
from .ways import Way

_REQUESTED: dict[Way, Requested] = {
  "best": None,
  "xla": "xla",
  "pallas_tpu": ("pallas_tpu", "xla"),
}


def pod_config(model: str, batch_size: int) -> Config:
  """The recipe of `b5-64k`, LARS with its schedule, of any member.

  The schedule ends at 0, which it can from any batch's rate.
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
    op: Such as "all-reduce".
    bytes: Of its result.
    group: Devices that it is between; 0 for all.
  """

  op: str
  bytes: int
  group: int

  def us(self, slice_: Slice) -> float:
    """What it takes on a slice; see `collectives.cost`."""
    group = self.group or slice_.devices
    if self.op in ("reduce-scatter", "collective-permute"):
      return one_way_us(self.bytes * group, group, slice_)
    if self.op != "all-reduce":
      return one_way_us(self.bytes, group, slice_)
    if group == slice_.devices:
      return all_reduce_us(self.bytes, slice_)
    tile = tile_shape(slice_.sides, slice_.cores, group)
    # A group that no box holds takes as long as one in a row.
    sides = tile or (-(-group // slice_.cores),)
    cores = min(group, slice_.cores)
    return ring_us(self.bytes, Slice(slice_.chip, sides, cores))


class Step(NamedTuple):
  """A compiled step.

  Attributes:
    judged: What its cores do.
    instructions: Of its HLO text, by name.
    movements: Its collectives.
  """

  judged: Judged
  instructions: dict[str, Instruction]
  movements: list[Movement]

  @property
  def kinds(self) -> dict[str, float]:
    """Microseconds of the core by kind, and between kernels."""
    kinds = dict.fromkeys(KINDS, 0.0)
    for kernel in self.judged.kernels:
      kinds[self.kind(kernel.name)] += kernel.microseconds
    rest = self.judged.microseconds - sum(kinds.values())
    return {**kinds, "between kernels": rest}

  @property
  def core_us(self) -> float:
    """All but its part in collectives, which `Movement.us` has."""
    return self.judged.microseconds - self.kinds["collectives"]

  def kind(self, kernel: str) -> str:
    """The kind of a kernel."""
    known = self.instructions.get(kernel)
    return known.kind if known else "normalisation"


def judge_step(
  config: Config, *, chip: str, devices: Sequence[jax.Device], way: Way
) -> Step:
  """Compiles one way to do a training step, and judges it.

  Args:
    config: Of the run; its batch is that of all devices.
    chip: Theirs, one of `static.CHIPS`.
    devices: Of a whole slice.
    way: Which.

  Raises:
    UsageError: it does not fit into HBM, or libtpu is missing.
  """
  judged = judge_lowered(_lowered(config, devices, way), chip)
  instructions = read_instructions(judged.hlo)
  movements = [
    Movement(x.collective, x.bytes, x.group_size)
    for x in instructions.values()
    if x.collective
  ]
  return Step(judged, instructions, movements)


def estimate_step(
  config: Config, *, chip: str, devices: Sequence[jax.Device], way: Way
) -> dict[str, Any]:
  """The figures of `judge_step`, whose arguments it takes.

  Returns:
    `step_us`, and of it `core_us` and `collective_us`; `images_per_s_per_core`;
    `hbm_bytes` moved, `peak_bytes` taken and what part `of_hbm` that is;
    `collectives`, their `count` and `bytes`; `kinds`, microseconds by kind of
    kernel; `top`, the kernels that take longest; `compile_s`; and `failed`,
    kernels that the compiler's own estimate stands for.
  """
  step = judge_step(config, chip=chip, devices=devices, way=way)
  judged, movements = step.judged, step.movements
  slice_ = slice_of(chip, devices)
  collective_us = sum(x.us(slice_) for x in movements)
  step_us = step.core_us + collective_us
  images = config.batch_size / len(devices)
  hbm_bytes = devices[0].num_cores * CHIPS[chip].hbm_gib * 2**30
  return {
    "implementation": way,
    "step_us": step_us,
    "core_us": step.core_us,
    "collective_us": collective_us,
    "images_per_s_per_core": images / step_us * 1e6,
    "hbm_bytes": judged.hbm_bytes,
    "peak_bytes": judged.peak_bytes,
    "of_hbm": judged.peak_bytes / hbm_bytes,
    "collectives": {
      "count": len(movements),
      "bytes": sum(x.bytes for x in movements),
    },
    "kinds": {**step.kinds, "collectives": collective_us},
    "top": _top(step),
    "compile_s": judged.compile_s,
    "compiler": compiler(),
    "failed": [note for note in judged.unmodelled if "FAILED" in note],
  }


def slice_of(chip: str, devices: Sequence[jax.Device]) -> Slice:
  """A whole slice, as the cost model takes it."""
  sides, cores = slice_sides(devices)
  return Slice(chip, sides, cores)


def _lowered(config, devices, way: Way) -> jax.stages.Lowered:
  if way == "plain":
    return lower_plain_step(config, devices)
  with kernels.default_implementation(_REQUESTED[way]):
    return lower_step(config, devices)


def _top(step: Step) -> list[dict[str, Any]]:
  return [
    {
      **kernel_row(kernel),
      "kind": step.kind(kernel.name),
      "from": _origin(step.instructions.get(kernel.name)),
    }
    for kernel in longest_first(step.judged.kernels)[:TOP]
  ]


def _origin(instruction: Instruction | None) -> str:
  """The last scopes of its name."""
  if instruction is None:
    return ""
  return "/".join(instruction.op_name.split("/")[-3:])
