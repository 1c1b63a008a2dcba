"""Scalar operations as lines of Python source.

Registers become variables. An operation is live if something that is counted
depends on it; results that only feed vector addresses are dead and left out.
The operands of a phi share a physical register, and the phi takes the value
written last. So an operation that writes such an operand also writes the input
of the phi, a variable of its own.

An unknown guard is neither True nor False: the lines test it with `is`.
"""

from collections import defaultdict
from typing import Any

from .bundles import Bundles, Operand, Operation
from .memory import dma_route
from .operations import DIVISIONS, EFFECTS, HELPERS, value_of
from .unknown import UNKNOWN


class Translator:
  """Variables of one routine, and its operations as lines.

  Besides the helpers of `operations`, the lines call functions and objects of
  the machine: `clock`, `memory`, `words`, `note`, `call`, `alias`, `argument`.

  Attributes:
    variables: Names of all variables, which start as `UNKNOWN`.
    names: Other names that the lines refer to, with their values.
  """

  def __init__(self, bundles: Bundles):
    self._bundles = bundles
    self._live = live_registers(bundles)
    self._inputs: dict[str, list[str]] = defaultdict(list)  # by operand
    for operations in bundles.operations.values():
      for o in operations:
        if o.kind == "phi" and o.result in self._live:
          for operand in o.operands:
            if not isinstance(operand, str):
              raise ValueError("a phi of a constant")
            self._inputs[operand].append(_input(o))
    self.variables = {_variable(register) for register in self._live}
    self.variables.update(*self._inputs.values())
    self.names: dict[str, Any] = {"UNKNOWN": UNKNOWN, **HELPERS}

  def is_live(self, o: Operation) -> bool:
    """Return True if something that is counted depends on the operation."""
    return o.kind in EFFECTS or o.result in self._live

  def phis(self, operations: list[Operation]) -> list[str]:
    """Translate the phis of a bundle, which act together."""
    phis = [o for o in operations if o.kind == "phi" and self.is_live(o)]
    if not phis:
      return []
    results = ", ".join(_variable(str(o.result)) for o in phis)
    lines = [f"{results} = {', '.join(map(_input, phis))}"]
    for o in phis:
      result = str(o.result)
      for name in self._inputs.get(result, ()):
        lines.append(f"{name} = {_variable(result)}")
    return lines

  def condition(self, o: Operation, bundle: int) -> tuple[list[str], str]:
    """Translate the guard of a branch.

    Returns:
      Lines before the branch, and an expression that is True if it is taken.
    """
    if not o.guard:
      return [], "True"
    guard = _variable(o.guard)
    note = f"data-dependent branch not taken, bundle {bundle:#x}"
    lines = [f"if {guard} is UNKNOWN: note({note!r})"]
    return lines, f"{guard} is {not o.negated}"

  def lines(self, o: Operation, bundle: int) -> list[str]:
    """Translate any operation but a phi or a branch."""
    match o.kind:
      case "store":
        return self._store(o, bundle)
      case "wait":
        return self._wait(o, bundle)
      case "flag_add" | "flag_set" | "flag_clear":
        return self._flag(o, bundle)
      case "dma":
        return self._dma(o, bundle)
      case "call":
        return self._call(o)
      case "delay":
        return self._delay(o)
      case "halt" | "remote" | "unknown":
        return self._note(o, bundle)
    return self._assign(o, self._expression(o))

  def _expression(self, o: Operation) -> str:
    """Write the result of an operation as an expression."""
    values = [_value(operand) for operand in o.operands]
    value = value_of(o.name)
    match o.kind:
      case "alu" | "compare" if value:
        return value.expression(values)
      case "logic" if value:
        return value.expression([_predicate(x) for x in o.operands])
      case "select" if value:
        if str(o.result).startswith("%p"):
          values[1:] = map(_predicate, o.operands[1:])
        return value.expression(values)
      case "address":
        total = " + ".join(values)
        return f"({total}) & 0xFFFFFFFF" if len(values) > 1 else total
      case "divide":
        return "divide({}, {})".format(*values) + DIVISIONS[o.note]
      case "pop":
        return f"pop({values[0]})"
      case "alias":
        return "alias({}, {})".format(*values)
      case "load":
        if o.note.endswith("core id") or "chip id" in o.note:
          return "0"
        return f"words.get({values[0]}, UNKNOWN)"
      case "argument":
        # The value of a scalar operand is data, hence unknown.
        is_scalar = "<" in o.name
        address = self._bundles.addresses[f"operand {values[0]}"]
        return f"argument({values[0]}, {'UNKNOWN' if is_scalar else address})"
    return "UNKNOWN"

  def _assign(self, o: Operation, expression: str) -> list[str]:
    """Assign to the result, and to the inputs of the phis that read it."""
    if not o.result or o.result not in self._live:
      return []
    names = [_variable(o.result), *self._inputs.get(o.result, ())]
    targets = " = ".join(names)
    if not o.guard:
      return [f"{targets} = {expression}"]
    guard, holds = _variable(o.guard), not o.negated
    if o.otherwise:
      old = f"{_variable(o.otherwise)} if {guard} is {not holds} else UNKNOWN"
      return [f"{targets} = ({expression}) if {guard} is {holds} else {old}"]
    return [
      f"if {guard} is not {not holds}:",
      f"  {targets} = ({expression}) if {guard} is {holds} else UNKNOWN",
    ]

  def _store(self, o: Operation, bundle: int) -> list[str]:
    at, value = map(_value, o.operands)
    if isinstance(o.operands[0], int):
      store = f"words[{at}] = "
      return _guarded(o, [store + value], [store + "UNKNOWN"])
    note = f"store to unknown scalar memory, bundle {bundle:#x}"
    checked = f"if {at} is UNKNOWN: note({note!r})"
    return _guarded(
      o,
      [checked, f"else: words[{at}] = {value}"],
      [checked, f"else: words[{at}] = UNKNOWN"],
    )

  def _wait(self, o: Operation, bundle: int) -> list[str]:
    flag, needed = map(_value, o.operands)
    name = self._own(o, bundle)
    line = f"clock.now = memory.wait(clock.now, {name}, {flag}, {needed})"
    return _guarded(o, [line], [line])

  def _flag(self, o: Operation, bundle: int) -> list[str]:
    adds = o.kind == "flag_add"
    flag = _value(o.operands[0])
    value = "0" if o.kind == "flag_clear" else _value(o.operands[1])
    method = "add_to_flag" if adds else "set_flag"
    call = f"memory.{method}({self._own(o, bundle)}, "
    return _guarded(o, [f"{call}{flag}, {value})"], [f"{call}UNKNOWN, 0)"])

  def _dma(self, o: Operation, bundle: int) -> list[str]:
    name = self._own(o, bundle)
    if o.name == "dma":
      descriptor = _value(o.operands[-1])
      line = f"memory.start_described(clock.now, {name}, {descriptor})"
    else:
      route = dma_route(o, self._bundles.spaces)
      size = _value(o.labels.get("size_in_granules"))
      flag = _value(o.labels.get("dst_syncflagno"))
      to = _value(o.labels.get("smem"))
      line = f"memory.start(clock.now, {name}, {route!r}, {size}, {flag}, {to})"
    note = f"DMA under an unknown condition taken as done, bundle {bundle:#x}"
    return _guarded(o, [line], [f"note({note!r})", line])

  def _call(self, o: Operation) -> list[str]:
    arguments = "".join(_value(operand) + ", " for operand in o.operands)
    line = f"call({called(o)!r}, ({arguments}))"
    return _guarded(o, [line], [line])

  def _delay(self, o: Operation) -> list[str]:
    cycles = " + ".join(map(_value, o.operands))
    line = f"if ({cycles}) is not UNKNOWN: clock.now += {cycles}"
    return _guarded(o, [line], [line])

  def _note(self, o: Operation, bundle: int) -> list[str]:
    if o.kind == "halt":
      note = f"a bounds check would halt: bundle {bundle:#x}"
      return _guarded(o, [f"note({note!r})"], ["pass"])
    if o.kind == "remote":
      note = f"{o.name} {o.note} (host, other core or other chip)"
    else:
      note = f"unknown scalar operation {o.name}, bundle {bundle:#x}"
    line = f"note({note!r})"
    return [*_guarded(o, [line], [line]), *self._assign(o, "UNKNOWN")]

  def _own(self, o: Operation, bundle: int) -> str:
    """Return a name by which the lines refer to the operation itself."""
    place = self._bundles.operations[bundle].index(o)
    name = f"operation_{bundle}_{place}"
    self.names[name] = o
    return name


def called(o: Operation) -> str:
  """Return the HLO instruction that a call runs."""
  return o.note.split(" = ")[0].strip().lstrip("%")


def live_registers(bundles: Bundles) -> set[str]:
  """Collect the registers on which something that is counted depends."""
  writers: dict[str, list[Operation]] = defaultdict(list)
  waiting: list[str] = []
  live: set[str] = set()
  for operations in bundles.operations.values():
    for o in operations:
      if o.result:
        writers[o.result].append(o)
      if o.kind in EFFECTS:
        waiting += _needs(o)
        if o.result and o.kind == "divide":
          waiting.append(o.result)
  while waiting:
    register = waiting.pop()
    if register not in live:
      live.add(register)
      for o in writers[register]:
        waiting += _needs(o)
  return live


def _needs(o: Operation) -> list[str]:
  """List the registers on which the effect of an operation depends here."""
  if o.kind != "dma":
    return o.reads()
  wanted = [o.labels.get(x) for x in ("size_in_granules", "dst_syncflagno")]
  wanted += [o.labels.get("smem"), o.operands[-1] if o.name == "dma" else None]
  terms = [x for w in wanted for x in (w if isinstance(w, list) else [w])]
  return [x for x in [*terms, o.guard, o.otherwise] if isinstance(x, str)]


def _guarded(
  o: Operation, lines: list[str], if_unknown: list[str]
) -> list[str]:
  """Put lines under an operation's guard, and others under an unknown one."""
  if not o.guard:
    return lines
  guard = _variable(o.guard)
  return [
    f"if {guard} is {not o.negated}:",
    *("  " + line for line in lines),
    f"elif {guard} is UNKNOWN:",
    *("  " + line for line in if_unknown),
  ]


def _variable(register: str) -> str:
  """Name the variable of a register: `%s12_s3` -> `s12_s3`, `%7` -> `_7`."""
  name = register[1:]
  return name if name[0].isalpha() else f"_{name}"


def _input(phi: Operation) -> str:
  """Name the variable of a phi's input."""
  return f"into_{_variable(str(phi.result))}"


def _value(operand: Operand) -> str:
  """Write an operand as an expression."""
  if operand is None:
    return "UNKNOWN"
  if isinstance(operand, str):
    return _variable(operand)
  if isinstance(operand, list):
    return f"({' + '.join(map(_value, operand))} & 0xFFFFFFFF)"
  return str(operand)


def _predicate(operand: Operand) -> str:
  """Write a predicate operand as an expression; literals are 0 and 1."""
  return str(bool(operand)) if isinstance(operand, int) else _value(operand)
