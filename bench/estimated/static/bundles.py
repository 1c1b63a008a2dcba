"""Reader of the compiler's final bundles.

A `*-final_bundles.txt` has a line for each VLIW bundle, such as

    0x1d LB: > { %s3_s3 = sadd.s32 1, %s4_s3  ;;  %v5 = vadd.f32 %v3, %v4 }

with the address, the kind of place (LB: loop body), the operations, and, in
comments after the brace, the regions that start there. Branches name regions.
Registers are virtual (`%s3`), followed by the physical one (`_s3`). The reader
keeps what the scalar unit computes and starts. It drops vector operations,
which only fill slots.
"""

import dataclasses
import re
from collections import Counter

from .addresses import Addresses
from .operations import WORD, does_nothing, kind_of

type Operand = int | str | list[int | str] | None
"""A number, a register, a sum of both, or None for what is no integer."""

_COMMENT = re.compile(r"/\*(.*?)\*/", re.DOTALL)
_STAND_IN = re.compile(r"\x01(\d+)\x01")  # the comment of that number
_LABELLED = re.compile(r"\x01(\d+)\x01\s*([^,\x01]+)")  # /*label=*/operand
_BUNDLE = re.compile(
  r"\s*(?:0x[0-9a-f]+|0)\s+(\w*)\s*:\s*>*\s*\{(.*)\}([^}]*)$"
)
_OPERATION = re.compile(
  r"(?:(%\w+) = )?([a-z][\w.\-]*(?:<[^>]*>)?)\s*(.*)$", re.DOTALL
)
# (%p): only if %p; (%p, %old): the result is %old where %p is false.
_GUARD = re.compile(r"\((!?)(%p\w+)(?:,\s*(%\w+))?\)")
_HLO_NAME = re.compile(r"\b(?:entry|exit) bundle: %([\w.\-]+) =")
_REGION = re.compile(r"Start(?:/End empty)? region (\d+)")

# Order in a bundle: phis, then operations without effects, then the others.
_RANKS = {
  "phi": 0,
  "store": 2,
  "wait": 3,
  "flag_add": 4,
  "flag_set": 4,
  "flag_clear": 4,
  "dma": 5,
  "call": 6,
  "branch": 7,
}
_PURE = 1


@dataclasses.dataclass(slots=True)
class Operation:
  """One operation that the scalar unit computes or starts.

  Attributes:
    name: Name in the bundle, such as `sadd.s32`.
    kind: Kind, from `operations.kind_of`, such as `alu`.
    result: Register that the operation writes.
    operands: Operands that the operation reads.
    guard: Predicate register that must be true.
    negated: True if the guard must be false instead.
    otherwise: Register whose value the result takes where the guard fails.
    labels: Named operands, which DMAs have.
    note: Comments.
    region: Target of a branch.
  """

  name: str
  kind: str
  result: str | None
  operands: list[Operand]
  guard: str | None
  negated: bool
  otherwise: str | None
  labels: dict[str, Operand]
  note: str
  region: int | None

  def reads(self) -> list[str]:
    """List the registers that the operation reads."""
    places = [*self.operands, *self.labels.values(), self.guard, self.otherwise]
    terms = (p if isinstance(p, list) else [p] for p in places)
    return [term for part in terms for term in part if isinstance(term, str)]


@dataclasses.dataclass
class Bundles:
  """Scalar side of one routine, or of the top level.

  Attributes:
    hlo_name: HLO instruction that the routine computes, if the text has it.
    length: Number of bundles.
    operations: Operations of each bundle that has any, in order of execution.
    regions: First bundle of each region.
    delays: Cycles that each bundle waits by itself (`vdelay`).
    spaces: Memory that each pointer register points to.
    addresses: Addresses of the allocations.
    unread: Texts that the reader did not understand, with their counts.
  """

  hlo_name: str | None
  length: int
  operations: dict[int, list[Operation]]
  regions: dict[int, int]
  delays: list[int]
  spaces: dict[str, str]
  addresses: Addresses
  unread: Counter[str]


def read_bundles(text: str, *, top_level: bool) -> Bundles:
  """Read the text of one `*-final_bundles.txt`.

  Args:
    text: Text of the file.
    top_level: True for the top level, which calls the routines.

  Raises:
    ValueError: The text has no bundles, or a branch has no target.

  >>> bundles = read_bundles('''
  ...      0   :  { %s1_s0 = smov.u32 7  ;;  %v2_v0 = vlaneseq.b32 }
  ...    0x1   :  {}
  ... ''', top_level=False)
  >>> bundles.length, bundles.operations[0][0].operands
  (2, [7])
  """
  return _Reader(text, top_level).bundles


class _Reader:
  def __init__(self, text: str, top_level: bool):
    name = _HLO_NAME.search(text)
    self._comments: list[str] = []
    self._parameters: set[str] = set()
    self._last_label = ""
    self.bundles = Bundles(
      *(name and name[1], 0, {}, {}, [], {}),
      *(Addresses(top_level=top_level), Counter()),
    )
    # Comments contain braces, commas and line ends, so they are cut out first.
    for line in _COMMENT.sub(self._put_away, text).splitlines():
      if match := _BUNDLE.match(line):
        self._bundle(*match.groups())
    if not self.bundles.length:
      raise ValueError("no bundles found in the text")
    self._end_regions()

  def _put_away(self, comment: re.Match[str]) -> str:
    self._comments.append(comment[1].strip())
    return f"\x01{len(self._comments) - 1}\x01"

  def _bundle(self, label: str, body: str, tail: str) -> None:
    bundles = self.bundles
    for number in _STAND_IN.findall(tail):
      for region in _REGION.findall(self._comments[int(number)]):
        bundles.regions[int(region)] = bundles.length
    bundles.delays.append(0)
    found = []
    for text in body.split(";;"):
      text = text.strip()
      if text and not text.startswith("%v"):  # a vector result
        operation = self._operation(text)
        if operation:
          found.append(operation)
    if found:
      bundles.operations[bundles.length] = _in_order(found)
    bundles.length += 1
    self._last_label = label

  def _end_regions(self) -> None:
    """Let branches to a region that starts nowhere go to the last bundle."""
    bundles = self.bundles
    for operations in bundles.operations.values():
      for o in operations:
        if o.kind == "branch" and o.region not in bundles.regions:
          if o.region is None or self._last_label not in ("PF", "CT"):
            raise ValueError(
              f"a branch goes to region {o.region}, which starts at no bundle"
            )
          bundles.regions[o.region] = bundles.length - 1

  def _operation(self, text: str) -> Operation | None:
    match = _OPERATION.match(text)
    if not match:
      self.bundles.unread[f"not understood: {text[:60]}"] += 1
      return None
    result, name, rest = match.groups()
    if does_nothing(name):
      return None
    notes, labels = self._comments_of(rest)
    # `sst [smem:[..]] %value` has no comma.
    rest = re.sub(r"\]\]\s+(?=[%$\d\[])", "]], ", _STAND_IN.sub("", rest))
    guard = _GUARD.search(rest)
    negated, predicate, otherwise = (
      guard.groups() if guard else ("", None, None)
    )
    rest = _GUARD.sub("", rest).strip(" ,")
    region = re.search(r"target = \$region(\d+)", rest)
    if name.startswith(("int_to_ptr", "scalar_lea", "inlined_call_operand")):
      self.bundles.spaces[str(result)] = name.partition(".")[2]
    operands: list[Operand]
    if name.startswith("inlined_call_operand"):
      kind = "argument"
      # Operand -1 is the table that holds the operands if there are many.
      index = re.search(r"index: (-?\d+)", rest)
      operands = [int(index[1]) if index else None]
    else:
      kind = kind_of(name, notes)
      rest = re.sub(r"\[(thread|resolvable):[^\]]*\]", "", rest)
      parts = [] if region else rest.split(",")
      operands = [self._operand(part) for part in parts if part.strip()]
    if kind == "parameter":
      self._parameters.add(str(result))
    if name.startswith("scmp.eq") and self._parameters & {
      operand for operand in operands if isinstance(operand, str)
    }:
      kind = "alias"
    if kind == "delay" and operands and isinstance(operands[0], int):
      self.bundles.delays[-1] += operands[0]
      return None
    return Operation(
      *(name, kind, result, operands, predicate, bool(negated), otherwise),
      *(labels, notes, int(region[1]) if region else None),
    )

  def _comments_of(self, text: str) -> tuple[str, dict[str, Operand]]:
    """Separate notes from labelled operands, `/*size_in_granules=*/8192`."""
    if "\x01" not in text:
      return "", {}
    comments = self._comments
    numbers = map(int, _STAND_IN.findall(text))
    notes = [comments[i] for i in numbers if not comments[i].endswith("=")]
    labels = {
      comments[int(i)][:-1]: self._operand(operand)
      for i, operand in _LABELLED.findall(text)
      if comments[int(i)].endswith("=")
    }
    return " ".join(notes), labels

  def _operand(self, text: str) -> Operand:
    # In `%s5 [#allocation3]` the bracket only says where the register points.
    text = re.sub(r"^(%\w+)\s+\[#.*", r"\1", text.strip())
    terms: list[int | str] = []
    for term in re.sub(r"[\[\]]|\w+:", "", text).split("+"):
      term = term.strip()
      if term.startswith("#"):
        terms.append(self.bundles.addresses[term])
      elif re.fullmatch(r"%\w+", term):
        terms.append(term)
      elif re.fullmatch(r"-?\d+|\$0x[0-9a-f]+", term):
        terms.append(int(term.replace("$", ""), 0) & WORD)
      else:
        return None
    if all(isinstance(term, int) for term in terms):
      return sum(term for term in terms if isinstance(term, int))
    return terms[0] if len(terms) == 1 else terms


def _in_order(operations: list[Operation]) -> list[Operation]:
  """Sort by rank, and pure operations behind those whose results they read.

  A pointer cast takes no time, so its result may be read in the same bundle.
  """
  if len(operations) == 1:
    return operations
  writers = {
    o.result: o
    for o in operations
    if o.result and _RANKS.get(o.kind, _PURE) == _PURE
  }
  ordered: list[Operation] = []
  done: set[int] = set()

  def place(operation: Operation) -> None:
    if id(operation) in done:
      return
    done.add(id(operation))
    if operation.kind != "phi":
      for register in operation.reads():
        if register in writers:
          place(writers[register])
    ordered.append(operation)

  for operation in sorted(operations, key=_rank):
    place(operation)
  return ordered


def _rank(operation: Operation) -> int:
  return _RANKS.get(operation.kind, _PURE)
