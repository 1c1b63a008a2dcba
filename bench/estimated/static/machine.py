"""Running kernels on one core: time, calls, and what each kernel cost."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from .chips import Chip
from .kernel import Kernel, explain
from .memory import Memory, Traffic
from .unknown import UNKNOWN

_LONGEST_RUN = 20_000_000  # stretches in one call


class Record:
  """What one kernel did, over all its calls.

  Attributes:
    kernel: The kernel.
    calls: How often it ran.
    cycles: In it, stalls included, without the kernels that it called.
    ran: How often each exit of its stretches was taken.
    traffic: What it moved, and for what it waited.
  """

  def __init__(self, kernel: Kernel):
    self.kernel = kernel
    self.calls = 0
    self.cycles = 0.0
    self.ran: Counter[int] = Counter()
    self.traffic = Traffic()

  def executed(self) -> list[int]:
    """How often each bundle ran."""
    if self.kernel.error:
      return [0] * self.kernel.length
    changes = [0] * (self.kernel.length + 1)
    for exit_, times in self.ran.items():
      first, end, _, _ = self.kernel.scalar.exits[exit_]
      changes[first] += times
      changes[end] -= times
    counts, running = [], 0
    for change in changes[:-1]:
      running += change
      counts.append(running)
    return counts

  def issue_cycles(self) -> int:
    """Cycles that its bundles take when nothing stalls."""
    if self.kernel.error:
      return 0
    exits = self.kernel.scalar.exits
    waits = sum(n * exits[exit_].branch_wait for exit_, n in self.ran.items())
    counts = self.executed()
    return waits + sum(
      count * (1 + extra)
      for count, extra in zip(counts, self.kernel.extra, strict=True)
    )

  def slots_used(self) -> dict[str, int]:
    """Uses of each unit's slots; empty without the compiler's tables."""
    if self.kernel.error or not self.kernel.rows:
      return {}
    counts = self.executed()
    totals = [0] * len(self.kernel.units)
    for count, row in zip(counts, self.kernel.rows, strict=True):
      if count:
        totals = [t + count * n for t, n in zip(totals, row, strict=True)]
    return dict(zip(self.kernel.units, totals, strict=True))


class Machine:
  """One core that runs kernels.

  Attributes:
    now: Cycles so far.
    records: One per kernel that ran, in that order.
  """

  def __init__(
    self,
    chip: Chip,
    kernels: Iterable[Kernel],
    *,
    names: dict[str, Kernel] | None = None,
    estimates: dict[str, int] | None = None,
  ):
    """Makes an idle core.

    Args:
      chip: Of which the core is.
      kernels: All that may run.
      names: Of the HLO instructions that call them.
      estimates: Cycles taken for instructions whose kernel cannot be run.
    """
    self.now = 0.0
    self.records: list[Record] = []
    self._kernels = names or {}
    self._estimates = estimates or {}
    pages = set().union(*(kernel.pages for kernel in kernels))
    self._memory = Memory(chip, pages)
    self._records: dict[Kernel, Record] = {}

  def run(self, kernel: Kernel, arguments: Sequence[Any] = ()) -> Record:
    """Runs a kernel from where the clock stands."""
    record = self._record(kernel)
    record.calls += 1
    record.traffic.notes.update(kernel.notes)
    before, caller = self.now, self._memory.traffic
    self._memory.traffic = record.traffic
    if not kernel.error:
      try:
        self._interpret(kernel, arguments, record)
      except Exception as error:
        # One kernel that is not understood must not hide all others.
        kernel.error = explain(error)
    self._memory.traffic = caller
    record.cycles += self.now - before
    if kernel.error:
      note = f"FAILED, counted up to there: {kernel.error}"
      record.traffic.notes[note] = 1
    return record

  def _interpret(
    self, kernel: Kernel, arguments: Sequence[Any], record: Record
  ) -> None:
    notes = record.traffic.notes

    def note(text: str) -> None:
      notes[text] += 1

    def argument(index: int, default: Any) -> Any:
      return arguments[index] if 0 <= index < len(arguments) else default

    def alias(a: Any, b: Any) -> bool:
      """May the copy of an in-place output be left out?"""
      same = a is UNKNOWN or b is UNKNOWN or a == b
      if same:
        note("output taken to share its donated input's buffer: not copied")
      return same

    def call(name: str, values: Sequence[Any]) -> None:
      self._call(record, name, values)

    scalar, ran = kernel.scalar, record.ran
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
      exit_ = scalar.stretch(at)()
      ran[exit_] += 1
      at = scalar.exits[exit_].target
      left -= 1
      if not left:
        raise ValueError(f"over {_LONGEST_RUN} branches: an endless loop?")

  def _call(self, caller: Record, name: str, values: Sequence[Any]) -> None:
    if name not in self._kernels:
      caller.traffic.notes[f"call of {name} not run: no such kernel"] += 1
      return
    kernel, before = self._kernels[name], self.now
    record = self.run(kernel, values)
    if kernel.error:
      known = name in self._estimates
      end = before + self._estimates.get(name, self.now - before)
      taken = "estimated_cycles" if known else "cycles so far"
      caller.traffic.notes[f"{name} FAILED, taken for it: {taken}"] += 1
      record.cycles += end - self.now
      self.now = end
      self._memory.hold_back(end)
    caller.cycles -= self.now - before
    self._memory.release()

  def _record(self, kernel: Kernel) -> Record:
    if kernel not in self._records:
      self._records[kernel] = Record(kernel)
      self.records.append(self._records[kernel])
    return self._records[kernel]
