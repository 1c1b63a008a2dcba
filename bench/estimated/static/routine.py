"""One routine: bundles, their cycles, and scalar code."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from ...chips import Chip
from .bundles import read_bundles
from .interlocks import interlocks, read_utilisation
from .scalar import ScalarCode

_FILE = re.compile(r"(?:\d+-)?(.*?)-\d+-final_bundles\.txt$")


class Routine:
  """Machine code of one XLA fusion or Pallas kernel, or of the top level.

  A routine that cannot be read has an `error` and no code; the program goes on
  without it.

  Attributes:
    name: Name of the HLO instruction, or of the file if that is unknown.
    file_name: Name in the file's name.
    notes: Texts that were not understood or not expected, with their counts.
    error: Reason why reading or running failed, or None.
    length: Number of bundles.
    pages: Pages of the allocations' addresses.
    scalar: Scalar code.
    extra: Cycles that each bundle takes beyond one.
    units: Names of the columns of `rows`.
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
    """Read the files.

    Args:
      path: File of the bundles.
      chip: Chip for which they were compiled.
      tables: Utilisation tables, from `utilisation_files`.
      top_level: True for the top level, which calls the routines.
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
      # A future compiler may write anything; the other routines still count.
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
        raise ValueError(
          "branch delays of this chip need utilisation tables, which are "
          f"missing beside {path.name} or do not align with it"
        )
      self.notes["interlocks not known: cycles are too few"] += 1
    if found.capacities and found.capacities != chip.capacities:
      self.notes[f"slots {found.capacities} are not this chip's"] += 1
    self.extra, self.units, self.capacities, self.rows, _ = found
    self.scalar = ScalarCode(bundles, self.extra, chip)
    self.pages = bundles.addresses.pages()
    self.length = bundles.length


def explain(error: Exception) -> str:
  """Describe why a routine failed; unforeseen errors keep their type."""
  if isinstance(error, ValueError):
    return str(error)
  return f"not understood: {error!r}"
