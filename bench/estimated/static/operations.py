"""Scalar operations in one table: kind, meaning, and Python source.

`KINDS` has the kind of each operation, `VALUES` the results of operations that
only compute. A value has two definitions: `meaning` is written for reading,
`source` is the same as a Python expression, written for speed. The translator
emits the source, and the tests' interpreter calls the meaning; the tests
compare the two for every row.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from .unknown import UNKNOWN, Unknown

WORD = 0xFFFFFFFF
_SIGN = 1 << 31


class Value(NamedTuple):
  """Result of an operation as a function of the operands.

  Words are ints from 0 to `WORD`, predicates are bools.

  Attributes:
    meaning: Function of the operands.
    source: Python expression with a pair of braces for each operand.
    literal: Expression for a last operand that is a literal below 32; empty if
      there is no shorter one.
    takes_unknown: True if the function decides about unknown operands itself;
      otherwise an unknown operand makes the result unknown.
  """

  meaning: Callable[..., Any]
  source: str
  literal: str = ""
  takes_unknown: bool = False

  def evaluate(self, *operands: Any) -> Any:
    """Compute the result by the meaning."""
    if not self.takes_unknown and any(x is UNKNOWN for x in operands):
      return UNKNOWN
    return self.meaning(*operands)

  def expression(self, operands: list[str]) -> str:
    """Write the result as a Python expression, to be run with `HELPERS`.

    >>> VALUES["sshll.u32"].expression(["s1", "4"])
    '(s1 << 4) & 0xFFFFFFFF'
    """
    if self.literal and operands[-1] in _LITERALS:
      return self.literal.format(*operands)
    return self.source.format(*operands)


_LITERALS = set(map(str, range(32)))


def signed(word: int) -> int:
  """Convert a word to the number that its two's complement stands for.

  >>> signed(0xFFFFFFFF)
  -1
  """
  return word - (1 << 32) if word & _SIGN else word


def _or(a: Any, b: Any) -> Any:
  if a is True or b is True:
    return True
  return UNKNOWN if a is UNKNOWN or b is UNKNOWN else False


def _nand(a: Any, b: Any) -> Any:
  if a is False or b is False:
    return True
  return UNKNOWN if a is UNKNOWN or b is UNKNOWN else False


def select(condition: Any, a: Any, b: Any) -> Any:
  """Choose a or b; under an unknown condition only equal values are known."""
  if condition is UNKNOWN:
    return a if a is not UNKNOWN and b is not UNKNOWN and a == b else UNKNOWN
  return a if condition else b


def _shift_left(a: Any, by: Any) -> Any:
  if by is UNKNOWN:
    return UNKNOWN
  return (a << by) & WORD if by < 32 else a & 0


def _shift_right(a: Any, by: Any) -> Any:
  if by is UNKNOWN:
    return UNKNOWN
  return a >> by if by < 32 else a & 0


def _shift_right_signed(a: Any, by: Any) -> Any:
  if by is UNKNOWN:
    return UNKNOWN
  return (((a ^ _SIGN) - _SIGN) >> min(by, 31)) & WORD


def divide(a: Any, b: Any) -> list[int]:
  """Return quotient and remainder, in the order in which programs pop them.

  The list is empty where they are unknown.
  """
  if a is UNKNOWN or b is UNKNOWN or not b:
    return []
  return [a // b, a % b]


def pop(results: "list[int] | Unknown") -> int | Unknown:
  """Take the next result of a division; unknown if there is none."""
  if isinstance(results, Unknown) or not results:
    return UNKNOWN
  return results.pop(0)


HELPERS: dict[str, Callable[..., Any]] = {
  "shift_left": _shift_left,
  "shift_right": _shift_right,
  "shift_right_signed": _shift_right_signed,
  "select": select,
  "divide": divide,
  "pop": pop,
}
"""Functions that expressions call, by name."""

_SIGNED_LESS = "({0} ^ 0x80000000) < ({1} ^ 0x80000000)"
VALUES = {
  "sadd.s32": Value(lambda a, b: (a + b) & WORD, "({} + {}) & 0xFFFFFFFF"),
  "ssub.s32": Value(lambda a, b: (a - b) & WORD, "({} - {}) & 0xFFFFFFFF"),
  "smul.u32": Value(lambda a, b: (a * b) & WORD, "({} * {}) & 0xFFFFFFFF"),
  "smul.u24": Value(lambda a, b: (a * b) & WORD, "({} * {}) & 0xFFFFFFFF"),
  "smulhi.u32": Value(lambda a, b: a * b >> 32, "({} * {}) >> 32"),
  "sand.u32": Value(lambda a, b: a & b, "{} & {}"),
  "sor.u32": Value(lambda a, b: a | b, "{} | {}"),
  "sxor.u32": Value(lambda a, b: a ^ b, "{} ^ {}"),
  "sshll.u32": Value(
    lambda a, by: a * 2**by & WORD if by < 32 else 0,
    "shift_left({}, {})",
    "({} << {}) & 0xFFFFFFFF",
  ),
  "sshrl.u32": Value(
    lambda a, by: a // 2**by if by < 32 else 0,
    "shift_right({}, {})",
    "{} >> {}",
  ),
  "sshra.s32": Value(
    lambda a, by: signed(a) // 2 ** min(by, 31) & WORD,
    "shift_right_signed({}, {})",
  ),
  "smin.u32": Value(min, "select({0} < {1}, {0}, {1})"),
  "smax.u32": Value(max, "select({0} < {1}, {1}, {0})"),
  "smin.s32": Value(
    lambda a, b: min(a, b, key=signed), f"select({_SIGNED_LESS}, {{0}}, {{1}})"
  ),
  "smax.s32": Value(
    lambda a, b: max(a, b, key=signed), f"select({_SIGNED_LESS}, {{1}}, {{0}})"
  ),
  "smov": Value(lambda a: a, "{}"),
  "smov.u32": Value(lambda a: a, "{}"),
  "reloc": Value(lambda a: a * 64 & WORD, "({} * 64) & 0xFFFFFFFF"),
  "por": Value(_or, "{} | {}", takes_unknown=True),
  "pnand": Value(_nand, "({} ^ True) | ({} ^ True)", takes_unknown=True),
  "pneg": Value(lambda a: not a, "{} ^ True"),
  "pmov": Value(lambda a: a, "{}"),
  "scalar_select": Value(select, "select({}, {}, {})", takes_unknown=True),
}
"""Values by operation; `value_of` finds a comparison's row by its full name."""

_RELATIONS: dict[str, tuple[str, Callable[[int, int], bool]]] = {
  "eq": ("==", lambda a, b: a == b),
  "ne": ("!=", lambda a, b: a != b),
  "lt": ("<", lambda a, b: a < b),
  "le": ("<=", lambda a, b: a <= b),
  "gt": (">", lambda a, b: a > b),
  "ge": (">=", lambda a, b: a >= b),
}


def _signed_relation(relation: Callable[[int, int], bool]) -> Any:
  return lambda a, b: relation(signed(a), signed(b))


for _name, (_symbol, _relation) in _RELATIONS.items():
  VALUES[f"scmp.{_name}.u32"] = Value(_relation, f"{{}} {_symbol} {{}}")
  VALUES[f"scmp.{_name}.s32"] = Value(
    _signed_relation(_relation), f"({{}} ^ {_SIGN}) {_symbol} ({{}} ^ {_SIGN})"
  )

DIVISIONS = {"kDivAndRem": "[:]", "kDiv": "[:1]", "kRem": "[1:]"}
"""Slice of quotient and remainder that a division yields, by its comment."""

KINDS = {
  "sbr.rel": "branch",
  "dma.done.wait": "wait",
  "vsyncadd": "flag_add",
  "vsyncpa": "flag_clear",
  "vsyncset": "flag_set",
  "vsyncset.done": "flag_clear",
  "vsyncset.notdone": "flag_clear",
  "sphi": "phi",
  "pphi": "phi",
  "scalar_select": "select",
  "sld": "load",
  "sst": "store",
  "vdelay": "delay",
  "shalt.err": "halt",
  "inlined_call": "call",
  "spop.drf": "pop",
  "scalar_parameter_address": "parameter",
  **{
    name: "logic" if name.startswith("p") else "alu"
    for name in VALUES
    if not name.startswith(("scmp", "scalar_select"))
  },
}
"""Kinds of operations, by name; `kind_of` knows families of names as well."""

EFFECTS = {
  *("store", "wait", "flag_add", "flag_set", "flag_clear", "dma", "call"),
  *("branch", "delay", "halt", "alias", "divide", "pop", "remote", "unknown"),
}
"""Kinds that run whether or not an operation reads their result."""

# Ordering, tracing and set-up: they take their bundle and do nothing else.
_NOTHING = {
  *("sfence", "cfence", "vtrace", "vsettm", "vint", "vnop", "cld", "cst"),
  "compiler-scheduling-barrier",
}
_SCALAR_SIDE = ("vsync", "vwait", "vdelay")


def does_nothing(name: str) -> bool:
  """Return True for operations that only fill a slot, all vector ones too."""
  return name in _NOTHING or (
    name[0] == "v" and not name.startswith(_SCALAR_SIDE)
  )


def kind_of(name: str, note: str) -> str:
  """Return the kind of an operation.

  Args:
    name: Name in the bundle.
    note: Comments behind the name.

  >>> kind_of("scmp.lt.s32.totalorder", ""), kind_of("scalar_lea.vmem", "")
  ('compare', 'address')
  """
  if name in KINDS:
    return KINDS[name]
  if name.startswith(("scalar_lea.", "int_to_ptr.")):
    return "address"
  if re.match(r"scmp\.(eq|ne|lt|le|gt|ge)\b", name):
    return "compare"
  if name == "sdivrem.u32" and note in DIVISIONS:
    return "divide"
  if name.startswith("dma"):
    return "dma"
  if name.startswith("vwait.ge"):
    return "wait"
  if name.startswith(("vsync", "vwait")):
    return "remote"
  # A result of the vector unit or a float, whose value is unknown.
  if name.startswith("spop") or name.endswith(".f32"):
    return "opaque"
  return "unknown"


def value_of(name: str) -> Value | None:
  """Return the value of an operation, or None if it has none in the table."""
  if name.startswith("scmp."):
    _, relation, dtype, *_ = name.split(".")
    return VALUES[f"scmp.{relation}.{'s32' if dtype == 's32' else 'u32'}"]
  return VALUES.get(name)
