"""Interpreter of scalar code: the oracle of the translator to Python.

It executes operation by operation and shares only the table's meanings with the
translator, which emits the table's Python source.
"""

from types import SimpleNamespace

from podscale.bench.estimated.static.memory import dma_route
from podscale.bench.estimated.static.operations import (
  WORD,
  divide,
  pop,
  value_of,
)
from podscale.bench.estimated.static.scalar import Exit
from podscale.bench.estimated.static.translate import called
from podscale.bench.estimated.static.unknown import UNKNOWN

_PARTS = {"kDivAndRem": slice(0, 2), "kDiv": slice(0, 1), "kRem": slice(1, 2)}


class InterpretedCode:
  """Stand-in for `ScalarCode`.

  A block here ends with the delay slots of the first branch that is taken.
  """

  def __init__(self, bundles, extra, chip):
    self.exits = []
    self._bundles = bundles
    self._extra = extra
    self._chip = chip

  def start(self, **names):
    """Forget all registers, and take the machine's objects and functions."""
    self._machine = SimpleNamespace(**names)
    self._registers = {}  # value and time of writing
    self._time = 0

  def block(self, first):
    """Return a function that runs from a bundle on."""
    return lambda: self._run(first)

  def _run(self, first):
    taken = None
    b = first
    while b < self._bundles.length and not (taken and taken.end == b):
      self._machine.clock.now += 1 + self._extra[b]
      operations = self._bundles.operations.get(b, [])
      phis = [o for o in operations if o.kind == "phi"]
      values = [self._last_written(o.operands) for o in phis]
      for o, value in zip(phis, values, strict=True):
        self._write(o.result, value)
      for o in operations:
        if o.kind == "branch":
          if self._takes(o, b):
            if taken:
              raise ValueError(f"branch in a delay slot, bundle {b:#x}")
            end, wait = self._slots(b)
            self._machine.clock.now += wait
            taken = Exit(first, end, self._bundles.regions[o.region], wait)
        elif o.kind != "phi":
          self._execute(o, b)
      b += 1
    self.exits.append(taken or Exit(first, b, None, 0))
    return len(self.exits) - 1

  def _slots(self, b):
    """Return where the slots of a branch end, and the cycles left over."""
    left, end = self._chip.delay_slots, b + 1
    while end < self._bundles.length:
      cost = 1 + self._extra[end] if self._chip.delay_in_cycles else 1
      if cost > left:
        break
      left, end = left - cost, end + 1
    return end, left if self._chip.delay_in_cycles else 0

  def _last_written(self, registers):
    known = [self._registers[r] for r in registers if r in self._registers]
    return max(known, key=lambda entry: entry[1])[0] if known else UNKNOWN

  def _write(self, register, value):
    self._time += 1
    self._registers[register] = value, self._time

  def _read(self, operand):
    if operand is None:
      return UNKNOWN
    if isinstance(operand, str):
      return self._registers.get(operand, (UNKNOWN, 0))[0]
    if isinstance(operand, list):
      return self._sum(map(self._read, operand))
    return operand

  def _sum(self, terms):
    terms = list(terms)
    return UNKNOWN if any(x is UNKNOWN for x in terms) else sum(terms) & WORD

  def _predicate(self, operand):
    return bool(operand) if isinstance(operand, int) else self._read(operand)

  def _holds(self, o):
    """Return True, False, or UNKNOWN for an operation's guard."""
    if not o.guard:
      return True
    guard = self._read(o.guard)
    return UNKNOWN if guard is UNKNOWN else guard is not o.negated

  def _takes(self, o, b):
    holds = self._holds(o)
    if holds is UNKNOWN:
      self._machine.note(f"data-dependent branch not taken, bundle {b:#x}")
    return holds is True

  def _execute(self, o, b):
    holds = self._holds(o)
    if o.kind in _EFFECTS:
      if holds is not False:
        _EFFECTS[o.kind](self, o, b, holds is True)
      if o.kind not in ("remote", "unknown"):
        return
    if not o.result:
      return
    value = UNKNOWN
    if holds is True:
      value = self._value(o)
    elif holds is False:
      if not o.otherwise:
        return
      value = self._read(o.otherwise)
    self._write(o.result, value)

  def _value(self, o):
    values = [self._read(operand) for operand in o.operands]
    row = value_of(o.name)
    match o.kind:
      case "alu" | "compare" if row:
        return row.evaluate(*values)
      case "logic" if row:
        return row.evaluate(*map(self._predicate, o.operands))
      case "select":
        if o.result.startswith("%p"):
          values[1:] = map(self._predicate, o.operands[1:])
        return row.evaluate(*values)
      case "address":
        return self._sum(values)
      case "divide":
        return divide(*values)[_PARTS[o.note]]
      case "pop":
        return pop(values[0])
      case "alias":
        return self._machine.alias(*values)
      case "load":
        if o.note.endswith("core id") or "chip id" in o.note:
          return 0
        return self._machine.words.get(values[0], UNKNOWN)
      case "argument":
        address = self._bundles.addresses[f"operand {o.operands[0]}"]
        default = UNKNOWN if "<" in o.name else address
        return self._machine.argument(o.operands[0], default)
    return UNKNOWN

  def _store(self, o, b, holds):
    at, value = map(self._read, o.operands)
    if at is UNKNOWN:
      self._machine.note(f"store to unknown scalar memory, bundle {b:#x}")
    else:
      self._machine.words[at] = value if holds else UNKNOWN

  def _wait(self, o, b, holds):
    flag, needed = map(self._read, o.operands)
    clock, memory = self._machine.clock, self._machine.memory
    clock.now = memory.wait(clock.now, o, flag, needed)

  def _add_to_flag(self, o, b, holds):
    flag, value = map(self._read, o.operands)
    arguments = (flag, value) if holds else (UNKNOWN, 0)
    self._machine.memory.add_to_flag(o, *arguments)

  def _set_flag(self, o, b, holds):
    flag, value = self._read(o.operands[0]), 0
    if o.kind == "flag_set":
      value = self._read(o.operands[1])
    arguments = (flag, value) if holds else (UNKNOWN, 0)
    self._machine.memory.set_flag(o, *arguments)

  def _dma(self, o, b, holds):
    clock, memory = self._machine.clock, self._machine.memory
    if not holds:
      self._machine.note(
        f"DMA under an unknown condition taken as done, bundle {b:#x}"
      )
    if o.name == "dma":
      memory.start_described(clock.now, o, self._read(o.operands[-1]))
      return
    names = ("size_in_granules", "dst_syncflagno", "smem")
    labels = (self._read(o.labels.get(name)) for name in names)
    route = dma_route(o, self._bundles.spaces)
    memory.start(clock.now, o, route, *labels)

  def _call(self, o, b, holds):
    self._machine.call(called(o), tuple(map(self._read, o.operands)))

  def _delay(self, o, b, holds):
    cycles = self._sum(map(self._read, o.operands))
    if cycles is not UNKNOWN:
      self._machine.clock.now += cycles

  def _halt(self, o, b, holds):
    if holds:
      self._machine.note(f"a bounds check would halt: bundle {b:#x}")

  def _remote(self, o, b, holds):
    self._machine.note(f"{o.name} {o.note} (host, other core or other chip)")

  def _unknown(self, o, b, holds):
    self._machine.note(f"unknown scalar operation {o.name}, bundle {b:#x}")


_EFFECTS = {
  "store": InterpretedCode._store,
  "wait": InterpretedCode._wait,
  "flag_add": InterpretedCode._add_to_flag,
  "flag_set": InterpretedCode._set_flag,
  "flag_clear": InterpretedCode._set_flag,
  "dma": InterpretedCode._dma,
  "call": InterpretedCode._call,
  "delay": InterpretedCode._delay,
  "halt": InterpretedCode._halt,
  "remote": InterpretedCode._remote,
  "unknown": InterpretedCode._unknown,
}
