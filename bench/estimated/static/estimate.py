"""Cost of a function on a TPU, estimated from its compiled code alone."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ....train.errors import UsageError
from ...chips import CHIPS, Chip
from .compile import Compilation, compiled, libtpu_version, lowered_for
from .program import RoutineCost, simulate_program

if TYPE_CHECKING:
  import jax


class Estimate(NamedTuple):
  """Estimated cost of a program on one core.

  Attributes:
    microseconds: Time of the whole program.
    stall_us: Time spent waiting for DMAs.
    issue_us: Time of the bundles of all routines, and of the code around them.
    hbm_us: Time of all bytes at the bandwidth that programs reach.
    hbm_bytes: Bytes read and written.
    vector_slot_use: Fraction of the vector ALU's slots used while issuing.
    spills: Vector registers stored for want of registers.
    unmodelled: Notes on everything that the figures leave out.
    compile_s: Seconds that compiling took.
    peak_bytes: Bytes of HBM that the program takes.
    routines: Cost of each XLA fusion and Pallas kernel.
    hlo: Compiled HLO text.
  """

  microseconds: float
  stall_us: float
  issue_us: float
  hbm_us: float
  hbm_bytes: int
  vector_slot_use: float
  spills: int
  unmodelled: list[str]
  compile_s: float
  peak_bytes: int
  routines: list[RoutineCost]
  hlo: str


def estimate_function(
  function: Callable[..., Any],
  *args: Any,
  chip: str,
  free_layouts: bool = False,
  donate: Sequence[int] = (),
) -> Estimate:
  """Compile a function for one core of a TPU and estimate its cost.

  Nothing runs on a device. libtpu reads its flags once, so the first call must
  come before anything else in the process compiles for a TPU.

  Args:
    function: Function without `jax.jit`; it is traced for the chip.
    *args: Trees of `jax.ShapeDtypeStruct`, without shardings.
    chip: One of `CHIPS`, such as "v5e".
    free_layouts: True if the compiler chooses the layouts of arguments and
      results, as inside a larger program; False for row-major ones.
    donate: Indices of the arguments that the results may overwrite.

  Returns:
    The estimate. `bench calibrate` compares such estimates with hardware.

  Raises:
    UsageError: The chip is unknown, libtpu is missing, or its dump is empty or
      not understood.
  """
  lowered = lowered_for(
    function, *args, chip=chip, free_layouts=free_layouts, donate=donate
  )
  return estimate_lowered(lowered, chip)


def estimate_lowered(lowered: "jax.stages.Lowered", chip: str) -> Estimate:
  """Compile a lowered program and estimate its cost on one of its cores.

  The estimate leaves out waiting for other cores: collectives cost nothing.

  Args:
    lowered: Program for devices from `slice_devices`.
    chip: Chip of the devices, one of `CHIPS`.

  Raises:
    UsageError: The program does not fit in HBM, libtpu is missing, or its dump
      is empty or not understood.
  """
  with compiled(lowered) as compilation:
    return estimate_compilation(compilation, CHIPS[chip])


def estimate_compilation(compilation: Compilation, chip: Chip) -> Estimate:
  """Estimate the cost of a compiled program on one core.

  Args:
    compilation: Compiled program, with libtpu's dump.
    chip: Core, whose bandwidth and latency may be others than in `CHIPS`.

  Raises:
    UsageError: The dump is empty or not understood.
  """
  try:
    program = simulate_program(compilation.folder, chip, compilation.hlo)
  except ValueError as error:
    raise UsageError(
      f"libtpu {libtpu_version()} dumped bundles that podscale does not "
      f"understand ({error}); install libtpu 0.0.44 to 0.0.52"
    ) from error
  parts = [*program.routines, program.top_level]
  issue_us = sum(part.issue_us for part in parts)
  vector_us = sum(part.slots.get("VALU", 0.0) * part.issue_us for part in parts)
  return Estimate(
    microseconds=program.microseconds,
    stall_us=sum(part.stall_us for part in parts),
    issue_us=issue_us,
    hbm_us=sum(part.hbm_us for part in parts),
    hbm_bytes=sum(part.hbm_bytes for part in parts),
    vector_slot_use=vector_us / issue_us if issue_us else 0.0,
    spills=sum(part.spills for part in parts),
    unmodelled=[
      f"{part.name}: {note}" for part in parts for note in part.unmodelled
    ],
    compile_s=compilation.seconds,
    peak_bytes=compilation.peak_bytes,
    routines=program.routines,
    hlo=compilation.hlo,
  )
