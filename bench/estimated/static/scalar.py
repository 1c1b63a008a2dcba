"""The scalar unit: each basic block as one Python function.

A block starts where a branch may land, and ends with the delay slots of the
first branch behind. Blocks are translated to Python once and called as often as
they run, which is many times faster than interpreting each operation. Registers
are global variables of the functions, so that they outlive a block.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from ...chips import Chip
from .bundles import Bundles, Operation
from .translate import Translator
from .unknown import UNKNOWN

_TIMED = {"wait", "dma", "call"}


class Exit(NamedTuple):
  """An exit of a block.

  Attributes:
    first: First bundle of the block.
    end: Bundle after the last one that ran.
    target: Bundle that runs next; None at the end of the routine.
    branch_wait: Cycles spent in delay slots that have no bundles.
  """

  first: int
  end: int
  target: int | None
  branch_wait: int


class _Branch(NamedTuple):
  """A branch whose delay slots have not ended yet.

  Attributes:
    taken: Variable that is True if the branch is taken.
    exit: Exit by the branch.
  """

  taken: str
  exit: Exit


class ScalarCode:
  """Scalar code of one routine; a block is translated when it first runs.

  Attributes:
    exits: Exits of all blocks translated so far. The function of a block
      returns an index into the list.
  """

  def __init__(self, bundles: Bundles, extra: list[int], chip: Chip):
    """Take the bundles of a routine.

    Args:
      bundles: Routine.
      extra: Cycles that each bundle takes beyond one.
      chip: Chip, for the delay slots of branches.
    """
    self.exits: list[Exit] = []
    self._bundles = bundles
    self._chip = chip
    self._translator = Translator(bundles)
    self._blocks: dict[int, Callable[[], int]] = {}
    self._names = self._translator.names
    self._cycles = [0]  # before each bundle
    for cycles in extra:
      self._cycles.append(self._cycles[-1] + 1 + cycles)

  def start(self, **names: Any) -> None:
    """Forget all registers.

    Args:
      **names: Objects and functions of the machine that the lines refer to.
    """
    self._names.update(dict.fromkeys(self._translator.variables, UNKNOWN))
    self._names.update(names)

  def block(self, first: int) -> Callable[[], int]:
    """Return the function of the block that starts at a bundle."""
    if first not in self._blocks:
      lines = self._translate(first)
      variables = ", ".join(sorted(_assigned(lines)))
      source = "\n  ".join(
        ["def block():", f"global {variables}" if variables else "", *lines]
      )
      exec(compile(source, f"<block {first:#x}>", "exec"), self._names)
      self._blocks[first] = self._names["block"]
    return self._blocks[first]

  def _translate(self, first: int) -> list[str]:
    """Translate the bundles of a block, with their time and branches."""
    lines: list[str] = []
    pending: list[_Branch] = []
    branched = False
    on_clock = first  # bundles before it are on the clock
    b = first
    while True:
      while pending and pending[0].exit.end == b:
        branch = pending.pop(0)
        lines.append(f"if {branch.taken}:")
        lines += ("  " + x for x in self._leave(branch.exit, on_clock))
      at_end = b == self._bundles.length
      if at_end or (branched and not pending):
        following = Exit(first, b, None if at_end else b, 0)
        return lines + self._leave(following, on_clock)
      operations = self._bundles.operations.get(b, [])
      lines += self._translator.phis(operations)
      for o in operations:
        if o.kind == "phi" or not self._translator.is_live(o):
          continue
        if o.kind == "branch":
          branched = True
          lines += self._branch(o, first, b, pending)
          continue
        if o.kind in _TIMED and on_clock <= b:
          spent = self._cycles[b + 1] - self._cycles[on_clock]
          lines.append(f"clock.now += {spent}")
          on_clock = b + 1
        lines += self._translator.lines(o, b)
      b += 1

  def _branch(
    self, o: Operation, first: int, b: int, pending: list[_Branch]
  ) -> list[str]:
    """Decide a branch in bundle `b`, and append it to the pending ones."""
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
    target = self._bundles.regions[o.region]  # type: ignore[index]
    pending.append(_Branch(taken, Exit(first, end, target, wait)))
    return lines

  def _leave(self, leave: Exit, on_clock: int) -> list[str]:
    """Put the rest of the time on the clock, and return the exit's index."""
    self.exits.append(leave)
    spent = self._cycles[leave.end] - self._cycles[on_clock]
    lines = [f"clock.now += {spent}"] if spent else []
    return [*lines, f"return {len(self.exits) - 1}"]

  def _delay_slots(self, b: int) -> tuple[int, int]:
    """Return the end of a branch's delay slots, and cycles without bundles."""
    slots, length = self._chip.delay_slots, self._bundles.length
    end = b + 1
    if not self._chip.delay_in_cycles:
      return min(end + slots, length), 0
    cycles = self._cycles
    while end < length and cycles[end + 1] - cycles[b + 1] <= slots:
      end += 1
    return end, slots - (cycles[end] - cycles[b + 1])


def _assigned(lines: list[str]) -> set[str]:
  """Collect the registers that lines write; `taken_` variables stay local."""
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
