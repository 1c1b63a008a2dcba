"""One compiled kernel: its bundles, their cycles, and its scalar code."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from .bundles import read_bundles
from .chips import Chip
from .interlocks import interlocks, read_utilisation
from .scalar import ScalarCode

_FILE = re.compile(r"(?:\d+-)?(.*?)-\d+-final_bundles\.txt$")


class Kernel:
  """What a `*-final_bundles.txt` and the tables beside it say.

  A kernel that cannot be read has an `error` and no code; the program goes on
  without it.

  Attributes:
    name: Of its HLO instruction, or else of its file.
    file_name: As its file has it.
    notes: What could not be read, or is not as expected.
    error: Why it cannot be run, or why running it failed.
    length: Bundles.
    pages: Of the addresses of its allocations.
    scalar: Its scalar code.
    extra: Cycles that each takes beyond one.
    units: Columns of `rows`.
    capacities: Slots of each unit in a bundle.
    rows: Slots that each bundle uses.
  """

  def __init__(
    self,
    path: Path,
    chip: Chip,
    tables: Mapping[tuple[str, str], Path],
    *,
    top_level: bool = False,
  ):
    """Reads the files.

    Args:
      path: The bundles.
      chip: What they were compiled for.
      tables: What `utilisation_files` found in the folder.
      top_level: They are the top level's, which calls the kernels.
    """
    match = _FILE.match(path.name)
    self.file_name = self.name = match[1] if match else path.name
    self.notes: Counter[str] = Counter()
    self.error: str | None = None
    self.length = 0
    self.pages: set[int] = set()
    try:
      self._read(path, chip, tables, top_level)
    except Exception as error:
      # Whatever a compiler yet unknown writes, the other kernels still count.
      self.error = explain(error)

  def _read(
    self,
    path: Path,
    chip: Chip,
    tables: Mapping[tuple[str, str], Path],
    top_level: bool,
  ) -> None:
    text = path.read_text(errors="replace")
    bundles = read_bundles(text, top_level=top_level)
    self.name = bundles.hlo_name or self.name
    self.notes.update(bundles.unread)
    start = re.sub(r"-\d+-final_bundles\.txt$", "", path.name)
    scheduled, final = (
      read_utilisation(table.read_text()) if table else None
      for table in (tables.get((start, k)) for k in ("pre-delay", "final"))
    )
    found = interlocks(bundles.delays, scheduled, final)
    if not found.aligned:
      if chip.delay_in_cycles:
        raise ValueError("branch delays of this chip need utilisation tables")
      self.notes["interlocks not known: cycles are too few"] += 1
    if found.capacities and found.capacities != chip.capacities:
      self.notes[f"slots {found.capacities} are not this chip's"] += 1
    self.extra, self.units, self.capacities, self.rows, _ = found
    self.scalar = ScalarCode(bundles, self.extra, chip)
    self.pages = bundles.addresses.pages()
    self.length = bundles.length


def explain(error: Exception) -> str:
  """Why a kernel fails, in words where it was foreseen."""
  if isinstance(error, ValueError):
    return str(error)
  return f"not understood: {error!r}"
