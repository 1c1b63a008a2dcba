"""The scalar unit: each stretch of bundles as one Python function.

A stretch starts where a branch may land and ends with the delay slots of the
first branch after that. Translating it once and calling it as often as it runs
is many times faster than interpreting its operations one by one. Registers are
global variables of the functions, so that they outlive a stretch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from .bundles import Bundles, Operation
from .chips import Chip
from .translate import Translator
from .unknown import UNKNOWN

_TIMED = {"wait", "dma", "call"}


class Exit(NamedTuple):
  """One way out of a stretch.

  Attributes:
    first: Bundle at which the stretch began.
    end: Bundle after the last that ran.
    target: Where it goes on; None at the end of the kernel.
    branch_wait: Cycles spent in delay slots that are left out of the bundles.
  """

  first: int
  end: int
  target: int | None
  branch_wait: int


class _Branch(NamedTuple):
  taken: str  # variable
  end: int  # of its delay slots
  target: int
  wait: int


class ScalarCode:
  """One kernel's scalar code; a stretch is translated when it first runs.

  Attributes:
    exits: Every way out of the stretches translated so far. The function of a
      stretch returns an index into it.
  """

  def __init__(self, bundles: Bundles, extra: list[int], chip: Chip):
    """Takes what was read.

    Args:
      bundles: The kernel.
      extra: Cycles that each bundle takes beyond one.
      chip: For its branch delay slots.
    """
    self.exits: list[Exit] = []
    self._bundles = bundles
    self._chip = chip
    self._translator = Translator(bundles)
    self._stretches: dict[int, Callable[[], int]] = {}
    self._names = self._translator.names
    self._cycles = [0]  # before each bundle
    for cycles in extra:
      self._cycles.append(self._cycles[-1] + 1 + cycles)

  def start(self, **names: Any) -> None:
    """Forgets all registers; `names` are what the translation calls."""
    self._names.update(dict.fromkeys(self._translator.variables, UNKNOWN))
    self._names.update(names)

  def stretch(self, first: int) -> Callable[[], int]:
    """The function of the stretch that starts at a bundle."""
    if first not in self._stretches:
      lines = self._translate(first)
      variables = ", ".join(sorted(_assigned(lines)))
      source = "\n  ".join(
        ["def stretch():", f"global {variables}" if variables else "", *lines]
      )
      exec(compile(source, f"<stretch {first:#x}>", "exec"), self._names)
      self._stretches[first] = self._names["stretch"]
    return self._stretches[first]

  def _translate(self, first: int) -> list[str]:
    lines: list[str] = []
    pending: list[_Branch] = []
    branched = False
    cycles = self._cycles
    counted = b = first  # bundles up to `counted` are on the clock
    while True:
      while pending and pending[0].end == b:
        branch = pending.pop(0)
        lines.append(f"if {branch.taken}:")
        leave = self._leave(first, b, counted, branch)
        lines += ("  " + line for line in leave)
      if b == self._bundles.length or (branched and not pending):
        return lines + self._leave(first, b, counted)
      operations = self._bundles.operations.get(b, [])
      lines += self._translator.phis(operations)
      for o in operations:
        if o.kind == "phi" or not self._translator.matters(o):
          continue
        if o.kind == "branch":
          branched = True
          lines += self._branch(o, b, pending)
          continue
        if o.kind in _TIMED and counted <= b:
          lines.append(f"clock.now += {cycles[b + 1] - cycles[counted]}")
          counted = b + 1
        lines += self._translator.lines(o, b)
      b += 1

  def _branch(self, o: Operation, b: int, pending: list[_Branch]) -> list[str]:
    lines, condition = self._translator.condition(o, b)
    taken = f"taken_{b}"
    lines.append(f"{taken} = {condition}")
    if pending:
      earlier = " or ".join(branch.taken for branch in pending)
      message = f"branch in a delay slot, bundle {b:#x}"
      lines.append(f"if {taken} and ({earlier}):")
      lines.append(f"  raise ValueError({message!r})")
    end, wait = self._delay_slots(b)
    if wait:
      lines.append(f"if {taken}: clock.now += {wait}")
    region = self._bundles.regions[o.region]  # type: ignore[index]
    pending.append(_Branch(taken, end, region, wait))
    return lines

  def _leave(
    self, first: int, end: int, counted: int, branch: _Branch | None = None
  ) -> list[str]:
    if branch:
      leave = Exit(first, end, branch.target, branch.wait)
    else:
      following = end if end < self._bundles.length else None
      leave = Exit(first, end, following, 0)
    self.exits.append(leave)
    spent = self._cycles[end] - self._cycles[counted]
    lines = [f"clock.now += {spent}"] if spent else []
    return [*lines, f"return {len(self.exits) - 1}"]

  def _delay_slots(self, b: int) -> tuple[int, int]:
    """Where a branch in bundle `b` jumps, and cycles of slots left out."""
    slots, length = self._chip.delay_slots, self._bundles.length
    end = b + 1
    if not self._chip.delay_in_cycles:
      return min(end + slots, length), 0
    cycles = self._cycles
    while end < length and cycles[end + 1] - cycles[b + 1] <= slots:
      end += 1
    return end, slots - (cycles[end] - cycles[b + 1])


def _assigned(lines: list[str]) -> set[str]:
  """The registers that lines write; `taken_` variables stay local."""
  found: set[str] = set()
  for line in lines:
    *targets, _ = line.strip().split(" = ")
    for target in targets:
      found.update(
        name
        for name in target.split(", ")
        if name.isidentifier() and not name.startswith("taken_")
      )
  return found
