"""A whole compiled program, from the files that the compiler dumped.

The top level (TLP in the files' names) calls kernels in place; its own DMAs
fetch ahead of them. Identical fusions share one body.
"""

import re
from pathlib import Path
from typing import NamedTuple

from .chips import Chip
from .interlocks import utilisation_files
from .kernel import Kernel
from .machine import Machine, Record

_BUNDLES = "-final_bundles.txt"


class KernelCost(NamedTuple):
  """What one XLA fusion or Pallas kernel costs, over all its calls.

  Attributes:
    name: Its HLO instruction; the first of those that share its code.
    calls: How often it ran.
    microseconds: In it, stalls included.
    bundles: Executed; exact, as long as no branch depends on data.
    stall_us: Of these, waiting for DMAs.
    issue_us: Its bundles alone.
    hbm_us: Its bytes at the full bandwidth.
    hbm_bytes: Read and written.
    dmas: How many moved them.
    slots: Used fraction of each unit's slots in the cycles of its bundles.
    spills: Vector registers stored for want of registers.
    fills: And loaded again.
    unmodelled: What it does that the figures leave out.
  """

  name: str
  calls: int
  microseconds: float
  bundles: int
  stall_us: float
  issue_us: float
  hbm_us: float
  hbm_bytes: int
  dmas: int
  slots: dict[str, float]
  spills: int
  fills: int
  unmodelled: list[str]


class ProgramCost(NamedTuple):
  """What a program costs; see `KernelCost` for the units.

  Attributes:
    microseconds: Of the whole program.
    kernels: Its kernels, in the order of their first calls.
    top_level: What the program does besides.
  """

  microseconds: float
  kernels: list[KernelCost]
  top_level: KernelCost


def simulate_program(folder: Path, chip: Chip, hlo: str = "") -> ProgramCost:
  """Runs the newest program in a dump folder.

  Args:
    folder: Holds the files.
    chip: What the program was compiled for.
    hlo: Its compiled HLO text, for kernels that cannot be run.

  Raises:
    FileNotFoundError: There is no program.
    ValueError: Its top level is not understood.
  """
  top, paths = program_files(folder)
  tables = utilisation_files(folder)
  kernels = [Kernel(path, chip, tables) for path in paths]
  names = {kernel.file_name: kernel for kernel in kernels}
  names |= {kernel.name: kernel for kernel in kernels}
  _add_duplicates(names, top)
  whole = Kernel(top, chip, tables, top_level=True)
  machine = Machine(
    chip, [*kernels, whole], names=names, estimates=estimated_cycles(hlo)
  )
  own = machine.run(whole)
  if whole.error:
    raise ValueError(f"{top.name}: {whole.error}")
  own.traffic.notes.update(_overlays(top))
  return ProgramCost(
    machine.now / chip.mhz,
    [_cost(r, chip) for r in machine.records if r is not own],
    _cost(own, chip),
  )


def simulate_kernel(path: Path, chip: Chip) -> KernelCost:
  """Runs one kernel alone and once, on an idle core.

  Args:
    path: Its `*-final_bundles.txt`, with its tables beside it.
    chip: What it was compiled for.
  """
  kernel = Kernel(path, chip, utilisation_files(path.parent))
  return _cost(Machine(chip, [kernel]).run(kernel), chip)


def program_files(folder: Path) -> tuple[Path, list[Path]]:
  """The top level and the kernels of the newest program in a folder.

  Raises:
    FileNotFoundError: There is none.
  """
  paths = [
    path
    for path in sorted(folder.glob(f"*{_BUNDLES}"))
    if "schedule-analysis" not in path.name
  ]
  tops = [p for p in paths if re.search(r"-TLP-\d+-final", p.name)]
  if not tops:
    raise FileNotFoundError(f"no compiled program (*-TLP-*{_BUNDLES})")
  top = max(tops, key=_stamp)
  kernels = [
    path
    for path in paths
    if "-TLP-" not in path.name
    and "<late-" not in path.name
    and _stamp(path) >= _stamp(top)
  ]
  return top, kernels


def estimated_cycles(hlo: str) -> dict[str, int]:
  """The compiler's own estimate for each HLO instruction that has one.

  >>> estimated_cycles('%f = f32[] fusion(), {"estimated_cycles":"7"}')
  {'f': 7}
  """
  found = re.findall(r'%([\w.\-]+) = .*?"estimated_cycles":"(\d+)"', hlo)
  return {name: int(cycles) for name, cycles in found}


def _stamp(path: Path) -> str:
  return path.name.split("-")[0]


def _beside(top: Path, kind: str) -> str:
  """The text of a file of another kind that belongs to the top level."""
  start = top.name.split("-TLP-")[0] + "-TLP-"
  return "".join(
    path.read_text()
    for path in top.parent.iterdir()
    if path.name.startswith(start) and path.name.endswith(f"-{kind}.txt")
  )


def _add_duplicates(names: dict[str, Kernel], top: Path) -> None:
  """Names the instructions that share the code of one that has it."""
  groups = re.findall(
    r"key:(\S+)\nordinal:\d+\nequivalent_hlos.*\n((?:  \S+\n)*)",
    _beside(top, "deduplication-map"),
  )
  for key, same in groups:
    group = [key, *same.split()]
    kernel = next((names[name] for name in group if name in names), None)
    if kernel:
      for name in group:
        names.setdefault(name, kernel)


def _overlays(top: Path) -> list[str]:
  """A note if the program is larger than the instruction memory."""
  text = _beside(top, "overlay-graph")
  sizes = dict(re.findall(r"#(\d+):tlp \S+ size:(\d+)", text))
  bundles = sum(map(int, sizes.values()))
  if len(sizes) < 2:
    return []
  return [f"loading {len(sizes)} instruction overlays, {bundles} bundles"]


def _cost(record: Record, chip: Chip) -> KernelCost:
  kernel, traffic = record.kernel, record.traffic
  issue, used = record.issue_cycles(), record.slots_used()
  capacities = dict(zip(used, kernel.capacities, strict=True)) if used else {}
  return KernelCost(
    name=kernel.name,
    calls=record.calls,
    microseconds=record.cycles / chip.mhz,
    bundles=sum(record.executed()),
    stall_us=traffic.stall_cycles / chip.mhz,
    issue_us=issue / chip.mhz,
    hbm_us=traffic.hbm_bytes / chip.hbm_gb_per_s / 1e3,
    hbm_bytes=traffic.hbm_bytes,
    dmas=traffic.dmas,
    slots={
      unit: n / (capacities[unit] * issue) if issue else 0.0
      for unit, n in used.items()
    },
    spills=used.get("VSTORE:SPILL", 0),
    fills=used.get("VLOAD:FILL", 0),
    unmodelled=[f"{n}x {note}" for note, n in sorted(traffic.notes.items())],
  )
