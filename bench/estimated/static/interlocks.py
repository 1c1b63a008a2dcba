"""Cycles that bundles wait for each other, from the utilisation tables.

On v2 and v3 a bundle that must wait has `vdelay N`. Later chips interlock, and
the compiler drops the empty bundles of its schedule. Beside the final bundles
it dumps two tables of the slots used, with one row per bundle: one of the
schedule (`pre-delay_hlo`) and one of the final bundles (`final_hlo`). Aligning
the two recovers the empty bundles.
"""

import re
from pathlib import Path
from typing import NamedTuple

type Row = list[int]

# From this column on a row counts operations. The columns before it are
# occupancy: MATMUL, MATPUSH and XLU, or MXU and XLU, by libtpu's version.
_FIRST_COUNTED = "VALU"
_LONGEST_GROUP = 400
_FILE = re.compile(
  r"(.*)-\d+-(pre-delay|final)_hlo-static-per-bundle-utilization\.txt$"
)


class Utilisation(NamedTuple):
  """One table without the columns of occupancy.

  Attributes:
    units: Names of the columns.
    capacities: Slots of each unit in a bundle.
    rows: Slots used by each bundle.
  """

  units: list[str]
  capacities: tuple[int, ...]
  rows: list[Row]


class Interlocks(NamedTuple):
  """Time and slots of each bundle of a routine.

  Attributes:
    extra: Cycles of each bundle beyond one.
    units: Names of the columns of `rows`, empty without tables.
    capacities: Slots of each unit in a bundle.
    rows: Slots used, with those of the bundles that the compiler dropped.
    aligned: True if every cycle is accounted for.
  """

  extra: list[int]
  units: list[str]
  capacities: tuple[int, ...]
  rows: list[Row]
  aligned: bool


def utilisation_files(folder: Path) -> dict[tuple[str, str], Path]:
  """Find the tables in a folder.

  Returns:
    Paths by the start of the routine's file name and the kind of table.
  """
  matches = ((_FILE.match(path.name), path) for path in folder.iterdir())
  return {(match[1], match[2]): path for match, path in matches if match}


def read_utilisation(text: str) -> Utilisation:
  """Read one table.

  Raises:
    ValueError: The text does not name its columns.

  >>> read_utilisation('''== CAPACITY:
  ... MXU, XLU, VALU, SALU
  ...   4    3     4     2
  ... == UTILIZATION:
  ... 0 0 1 2
  ... ''')
  Utilisation(units=['VALU', 'SALU'], capacities=(4, 2), rows=[[1, 2]])
  """
  lines = text.splitlines()
  heads = [i for i, line in enumerate(lines) if _FIRST_COUNTED in line]
  if not heads:
    raise ValueError(
      f"a utilisation table without the names of its columns: {text[:60]!r}"
    )
  head = heads[0]
  units = lines[head].replace(" ", "").split(",")
  first = units.index(_FIRST_COUNTED)

  def counted(line: str) -> list[int]:
    return list(map(int, line.split()))[first:]

  return Utilisation(
    units[first:],
    tuple(counted(lines[head + 1])),
    [counted(line) for line in lines if line[:1].isdigit()],
  )


def interlocks(
  delays: list[int],
  scheduled: Utilisation | None,
  final: Utilisation | None,
) -> Interlocks:
  """Compute the cycles of each bundle, from its delay and both tables.

  Args:
    delays: Cycles that each bundle waits by itself.
    scheduled: Table of the schedule.
    final: Table of the final bundles.
  """
  units = scheduled.units if scheduled else []
  capacities = scheduled.capacities if scheduled else ()
  before = scheduled.rows if scheduled else []
  rows = final.rows if final and len(final.rows) == len(delays) else []
  groups = align(before, rows) if before and rows else None
  if groups:
    all_units = range(len(units))
    rows = [
      before[start]
      if end == start + 1
      else [sum(before[i][c] for i in range(start, end)) for c in all_units]
      for start, end in groups
    ]
  if len(before) == len(delays) + sum(delays):  # `delays` has all cycles
    return Interlocks(delays, units, capacities, rows, True)
  if not groups:
    return Interlocks(delays, units, capacities, rows, False)
  extra = [
    max(end - start - 1, 0) + delay
    for (start, end), delay in zip(groups, delays, strict=True)
  ]
  return Interlocks(extra, units, capacities, rows, True)


def align(before: list[Row], final: list[Row]) -> list[tuple[int, int]] | None:
  """Find the rows of the schedule that each final bundle stands for.

  Final bundles leave out empty rows, and sometimes merge or swap neighbours. So
  the function walks both tables in groups that close when their sums agree.
  Rows left out are charged to the next bundle that does something.

  Args:
    before: Rows of the schedule.
    final: Rows of the final bundles.

  Returns:
    `(first, end)` for each final bundle, or None if the tables do not align.

  >>> align([[1], [0], [2]], [[1], [2]])
  [(0, 1), (1, 3)]
  """
  # Some columns also hold occupancy, and their totals differ.
  columns = [
    c
    for c in range(len(final[0]))
    if sum(row[c] for row in before) == sum(row[c] for row in final)
  ]
  if not columns:
    return None
  before = [[row[c] for c in columns] for row in before]
  final = [[row[c] for c in columns] for row in final]
  groups: list[tuple[int, int]] = []
  i = f = 0
  while f < len(final):
    if i < len(before) and before[i] == final[f]:  # nearly always
      groups.append((i, i + 1))
      i, f = i + 1, f + 1
      continue
    want = have = [0] * len(columns)
    g, j = f, i
    while g == f or want != have:
      if g == len(final) or g - f > _LONGEST_GROUP:
        return None
      want = _add(want, final[g])
      g += 1
      if not any(want) and j < len(before) and not any(before[j]):
        j += 1
      missing = sum(want) - sum(have)
      while j < len(before) and missing > 0:
        have = _add(have, before[j])
        missing -= sum(before[j])
        j += 1
    for bundle in range(f, g):
      end = j if bundle == g - 1 else min(i + 1, j)
      groups.append((i, end))
      i = end
    f = g
  return groups


def _add(a: Row, b: Row) -> Row:
  return [x + y for x, y in zip(a, b, strict=True)]
