"""A whole compiled program, from the files that the compiler dumped.

The top level (TLP in the files' names) calls routines, the machine code of XLA
fusions and Pallas kernels. Its own DMAs fetch their operands ahead. Identical
fusions share one routine.
"""

import re
from pathlib import Path
from typing import NamedTuple

from ...chips import Chip
from .interlocks import utilisation_files
from .machine import Machine, Record
from .routine import Routine

_BUNDLES = "-final_bundles.txt"


class RoutineCost(NamedTuple):
  """Cost of one XLA fusion or Pallas kernel, over all its calls.

  Attributes:
    name: HLO instruction; the first one if several share the code.
    calls: Number of calls.
    microseconds: Time, stalls included.
    bundles: Executed bundles; exact unless a branch depends on data.
    stall_us: Time spent waiting for DMAs.
    issue_us: Time of the bundles alone.
    hbm_us: Time of the bytes at the bandwidth that programs reach.
    hbm_bytes: Bytes read and written.
    dmas: Number of DMAs.
    slots: Used fraction of each unit's slots in the cycles of the bundles.
    spills: Vector registers stored for want of registers.
    fills: Vector registers loaded again.
    unmodelled: Notes on everything that the figures leave out.
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
  """Cost of a program; see `RoutineCost` for the units.

  Attributes:
    microseconds: Time of the whole program.
    routines: Costs of the routines, in the order of their first calls.
    top_level: Cost of the code around the routines.
  """

  microseconds: float
  routines: list[RoutineCost]
  top_level: RoutineCost


def simulate_program(folder: Path, chip: Chip, hlo: str = "") -> ProgramCost:
  """Run the newest program in a dump folder.

  Args:
    folder: Folder with the compiler's files.
    chip: Chip for which the program was compiled.
    hlo: Compiled HLO text, whose estimates stand for routines that cannot run.

  Raises:
    FileNotFoundError: The folder has no program.
    ValueError: The top level is not understood.
  """
  top, paths = program_files(folder)
  tables = utilisation_files(folder)
  routines = [Routine(path, chip, tables) for path in paths]
  names = {routine.file_name: routine for routine in routines}
  names |= {routine.name: routine for routine in routines}
  _add_duplicates(names, top)
  whole = Routine(top, chip, tables, top_level=True)
  machine = Machine(
    chip, [*routines, whole], names=names, estimates=estimated_cycles(hlo)
  )
  own = machine.run(whole)
  if whole.error:
    raise ValueError(f"{top.name}: {whole.error}")
  own.traffic.notes.update(_overlays(top))
  return ProgramCost(
    machine.now / chip.mhz,
    [cost_of(r, chip) for r in machine.records if r is not own],
    cost_of(own, chip),
  )


def program_files(folder: Path) -> tuple[Path, list[Path]]:
  """Find the top level and the routines of the newest program in a folder.

  Raises:
    FileNotFoundError: The folder has no program.
  """
  paths = [
    path
    for path in sorted(folder.glob(f"*{_BUNDLES}"))
    if "schedule-analysis" not in path.name
  ]
  tops = [p for p in paths if re.search(r"-TLP-\d+-final", p.name)]
  if not tops:
    raise FileNotFoundError(
      f"no compiled program (*-TLP-*{_BUNDLES}) in {folder}"
    )
  top = max(tops, key=_stamp)
  routines = [
    path
    for path in paths
    if "-TLP-" not in path.name
    and "<late-" not in path.name
    and _stamp(path) >= _stamp(top)
  ]
  return top, routines


def estimated_cycles(hlo: str) -> dict[str, int]:
  """Read the compiler's own estimate for each HLO instruction that has one.

  >>> estimated_cycles('%f = f32[] fusion(), {"estimated_cycles":"7"}')
  {'f': 7}
  """
  found = re.findall(r'%([\w.\-]+) = .*?"estimated_cycles":"(\d+)"', hlo)
  return {name: int(cycles) for name, cycles in found}


def _stamp(path: Path) -> str:
  return path.name.split("-")[0]


def _beside(top: Path, kind: str) -> str:
  """Read the files of another kind that belong to the top level."""
  start = top.name.split("-TLP-")[0] + "-TLP-"
  return "".join(
    path.read_text()
    for path in top.parent.iterdir()
    if path.name.startswith(start) and path.name.endswith(f"-{kind}.txt")
  )


def _add_duplicates(names: dict[str, Routine], top: Path) -> None:
  """Add the names of instructions that share another one's code."""
  groups = re.findall(
    r"key:(\S+)\nordinal:\d+\nequivalent_hlos.*\n((?:  \S+\n)*)",
    _beside(top, "deduplication-map"),
  )
  for key, same in groups:
    group = [key, *same.split()]
    routine = next((names[name] for name in group if name in names), None)
    if routine:
      for name in group:
        names.setdefault(name, routine)


def _overlays(top: Path) -> list[str]:
  """Return a note if the program exceeds the instruction memory."""
  text = _beside(top, "overlay-graph")
  sizes = dict(re.findall(r"#(\d+):tlp \S+ size:(\d+)", text))
  bundles = sum(map(int, sizes.values()))
  if len(sizes) < 2:
    return []
  return [f"loading {len(sizes)} instruction overlays, {bundles} bundles"]


def cost_of(record: Record, chip: Chip) -> RoutineCost:
  """Convert the counts of a routine to its cost."""
  routine, traffic = record.routine, record.traffic
  issue, used = record.issue_cycles(), record.slots_used()
  capacities = dict(zip(used, routine.capacities, strict=True)) if used else {}
  return RoutineCost(
    name=routine.name,
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
