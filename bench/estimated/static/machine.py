"""One core that runs routines: time, calls, and the cost of each routine."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ...chips import Chip
from .memory import Memory, Traffic
from .routine import Routine, explain
from .unknown import UNKNOWN

_LONGEST_RUN = 20_000_000  # blocks in one call


class Record:
  """Counts of one routine, over all its calls.

  Attributes:
    routine: Routine.
    calls: Number of calls.
    cycles: Cycles with stalls, without the routines that this one called.
    ran: Number of times that each exit of a block was taken.
    traffic: Bytes moved, stalls and notes.
  """

  def __init__(self, routine: Routine):
    self.routine = routine
    self.calls = 0
    self.cycles = 0.0
    self.ran: Counter[int] = Counter()
    self.traffic = Traffic()

  def executed(self) -> list[int]:
    """Count how often each bundle ran."""
    if self.routine.error:
      return [0] * self.routine.length
    changes = [0] * (self.routine.length + 1)
    for exit_, times in self.ran.items():
      first, end, _, _ = self.routine.scalar.exits[exit_]
      changes[first] += times
      changes[end] -= times
    counts, running = [], 0
    for change in changes[:-1]:
      running += change
      counts.append(running)
    return counts

  def issue_cycles(self) -> int:
    """Count the cycles of the bundles without stalls."""
    if self.routine.error:
      return 0
    exits = self.routine.scalar.exits
    waits = sum(n * exits[exit_].branch_wait for exit_, n in self.ran.items())
    counts = self.executed()
    return waits + sum(
      count * (1 + extra)
      for count, extra in zip(counts, self.routine.extra, strict=True)
    )

  def slots_used(self) -> dict[str, int]:
    """Count the uses of each unit's slots; empty without utilisation tables."""
    if self.routine.error or not self.routine.rows:
      return {}
    counts = self.executed()
    totals = [0] * len(self.routine.units)
    for count, row in zip(counts, self.routine.rows, strict=True):
      if count:
        totals = [t + count * n for t, n in zip(totals, row, strict=True)]
    return dict(zip(self.routine.units, totals, strict=True))


class Machine:
  """One core that runs routines.

  Attributes:
    now: Cycles so far.
    records: Record of each routine that ran, in the order of first calls.
  """

  def __init__(
    self,
    chip: Chip,
    routines: Iterable[Routine],
    *,
    names: dict[str, Routine] | None = None,
    estimates: dict[str, int] | None = None,
  ):
    """Make an idle core.

    Args:
      chip: Chip of the core.
      routines: All routines that may run.
      names: Routine that each HLO instruction calls.
      estimates: Cycles of the instructions whose routine cannot run.
    """
    self.now = 0.0
    self.records: list[Record] = []
    self._routines = names or {}
    self._estimates = estimates or {}
    pages = set().union(*(routine.pages for routine in routines))
    self._memory = Memory(chip, pages)
    self._records: dict[Routine, Record] = {}

  def run(self, routine: Routine, arguments: Sequence[Any] = ()) -> Record:
    """Run a routine from the current cycle on.

    Args:
      routine: Routine.
      arguments: Addresses of its operands.

    Returns:
      The counts over all calls so far.
    """
    record = self._record(routine)
    record.calls += 1
    record.traffic.notes.update(routine.notes)
    before, caller = self.now, self._memory.traffic
    self._memory.traffic = record.traffic
    if not routine.error:
      try:
        self._execute(routine, arguments, record)
      except Exception as error:
        # One routine that is not understood must not hide all others.
        routine.error = explain(error)
    self._memory.traffic = caller
    record.cycles += self.now - before
    if routine.error:
      note = f"FAILED, counted up to there: {routine.error}"
      record.traffic.notes[note] = 1
    return record

  def _execute(
    self, routine: Routine, arguments: Sequence[Any], record: Record
  ) -> None:
    notes = record.traffic.notes

    def note(text: str) -> None:
      notes[text] += 1

    def argument(index: int, default: Any) -> Any:
      return arguments[index] if 0 <= index < len(arguments) else default

    def alias(a: Any, b: Any) -> bool:
      """Return True if the copy of an in-place output may be left out."""
      same = a is UNKNOWN or b is UNKNOWN or a == b
      if same:
        note("output taken to share its donated input's buffer: not copied")
      return same

    def call(name: str, values: Sequence[Any]) -> None:
      self._call(record, name, values)

    scalar, ran = routine.scalar, record.ran
    scalar.start(
      clock=self,
      memory=self._memory,
      words=self._memory.words,
      note=note,
      argument=argument,
      alias=alias,
      call=call,
    )
    at: int | None = 0
    left = _LONGEST_RUN
    while at is not None:
      exit_ = scalar.block(at)()
      ran[exit_] += 1
      at = scalar.exits[exit_].target
      left -= 1
      if not left:
        raise ValueError(f"over {_LONGEST_RUN} blocks ran: an endless loop?")

  def _call(self, caller: Record, name: str, values: Sequence[Any]) -> None:
    if name not in self._routines:
      caller.traffic.notes[f"call of {name} not run: no such routine"] += 1
      return
    routine, before = self._routines[name], self.now
    record = self.run(routine, values)
    if routine.error:
      known = name in self._estimates
      end = before + self._estimates.get(name, self.now - before)
      taken = "estimated_cycles" if known else "cycles so far"
      caller.traffic.notes[f"{name} FAILED, its time: {taken}"] += 1
      record.cycles += end - self.now
      self.now = end
      self._memory.hold_back(end)
    caller.cycles -= self.now - before
    self._memory.release()

  def _record(self, routine: Routine) -> Record:
    if routine not in self._records:
      self._records[routine] = Record(routine)
      self.records.append(self._records[routine])
    return self._records[routine]
