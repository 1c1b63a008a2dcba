"""The judge: what a function costs on a TPU, by its compiled code alone."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ....train.errors import UsageError
from .chips import CHIPS
from .compile import compiled, libtpu_version, lowered_for
from .program import KernelCost, simulate_program

if TYPE_CHECKING:
  import jax


class Judged(NamedTuple):
  """An estimate for one core; see `KernelCost` for the units.

  Attributes:
    microseconds: Of the whole program.
    stall_us: Of these, waiting for DMAs.
    issue_us: The bundles of all kernels, and of the program around them.
    hbm_us: All bytes at the full bandwidth.
    hbm_bytes: Read and written.
    vector_slot_use: Fraction of the vector ALU's slots used while issuing.
    spills: Vector registers stored for want of registers.
    unmodelled: What the figures leave out, with its kernel.
    compile_s: What compiling took.
    peak_bytes: HBM that the program takes.
    kernels: The cost of each XLA fusion and Pallas kernel.
    hlo: The compiled HLO text.
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
  kernels: list[KernelCost]
  hlo: str


def judge(
  function: Callable[..., Any],
  *args: Any,
  chip: str,
  free_layouts: bool = False,
  donate: Sequence[int] = (),
) -> Judged:
  """Compiles a function for one core of a TPU and predicts what it costs.

  Nothing runs on a device. libtpu reads its flags once: the first call must
  come before anything else in the process compiles for a TPU.

  Args:
    function: To be jitted; it is traced for the chip.
    *args: Trees of `jax.ShapeDtypeStruct`, without shardings.
    chip: One of `CHIPS`.
    free_layouts: The compiler chooses the layouts of arguments and results,
      as it does inside a larger program; otherwise they are row-major.
    donate: Which arguments the results may overwrite.

  Returns:
    The prediction. It was never compared with hardware.

  Raises:
    UsageError: The chip is not known, or libtpu is missing, or what it dumps
      is nothing or not understood.
  """
  lowered = lowered_for(
    function, *args, chip=chip, free_layouts=free_layouts, donate=donate
  )
  return judge_lowered(lowered, chip)


def judge_lowered(lowered: "jax.stages.Lowered", chip: str) -> Judged:
  """As `judge`, of a program that is lowered already, for one core or a slice.

  What the core waits for others is not in it: a collective costs nothing.

  Args:
    lowered: For devices that `slice_devices` gives.
    chip: Theirs, one of `CHIPS`.
  """
  with compiled(lowered) as compilation:
    try:
      program = simulate_program(
        compilation.folder, CHIPS[chip], compilation.hlo
      )
    except ValueError as error:
      raise UsageError(
        f"libtpu {libtpu_version()} writes bundles that are not understood "
        f"({error}); 0.0.44 to 0.0.52 are"
      ) from error
  parts = [*program.kernels, program.top_level]
  issue_us = sum(part.issue_us for part in parts)
  vector_us = sum(part.slots.get("VALU", 0.0) * part.issue_us for part in parts)
  return Judged(
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
    kernels=program.kernels,
    hlo=compilation.hlo,
  )
