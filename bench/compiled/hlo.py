"""Instructions of a compiled program, read from its HLO text."""

import math
import re
from typing import NamedTuple

_INSTRUCTION = re.compile(
  r"\s*(?:ROOT )?%([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)"
)
_SHAPE = re.compile(r"([a-z]+)(\d+)\[([\d,]*)\]")
_UPDATE = re.compile(
  r"/(update|update_ema|leaf_norms|lars_update|pack|scatter_mean|gather_shards"
  r"|mean_gradients)\b"
)

COLLECTIVES = (
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)
"""XLA's names of the collectives."""

_STARTS_WITH_OPERAND = (
  *("all-gather-start", "reduce-scatter-start", "all-to-all-start"),
  "collective-permute-start",
)


class Instruction(NamedTuple):
  """One instruction, with the text of the computations that it calls.

  Attributes:
    name: Name without the %.
    shape: Shape of the result, as HLO writes it.
    opcode: Operation, such as "fusion".
    text: Rest of the line, then the lines of the called computations.
  """

  name: str
  shape: str
  opcode: str
  text: str

  @property
  def op_name(self) -> str:
    """Origin in the Python program, scopes included."""
    match = re.search(r'op_name="([^"]*)"', self.text)
    return match[1] if match else ""

  @property
  def bytes(self) -> int:
    """Size of the result.

    Collectives that only start list their operand before the result.
    """
    if self.opcode in _STARTS_WITH_OPERAND and self.shape.startswith("("):
      _, result, *_ = _SHAPE.finditer(self.shape)
      return bytes_of(result[0])
    return bytes_of(self.shape)

  @property
  def collective(self) -> str | None:
    """XLA's name of the collective, also where it only starts; else None.

    XLA writes some reduce-scatters as a fusion of an all-reduce and a slice,
    and compiles the fusion to a reduce-scatter.
    """
    if self.opcode == "fusion" and "calls=%all-reduce-scatter" in self.text:
      return "reduce-scatter"
    name = self.opcode.removesuffix("-start")
    return name if name in COLLECTIVES else None

  @property
  def group_size(self) -> int:
    """Devices in one group of a collective; 0 for all, 2 for a permute.

    Raises:
      ValueError: The text has no replica groups in a known format.
    """
    permutes = self.collective == "collective-permute"
    return 2 if permutes else _group_size(self.text)

  @property
  def kind(self) -> str:
    """Purpose, one of `KINDS`."""
    if self.collective:
      return "collectives"
    if "depthwise_conv_bn" in self.name or _is_depthwise(self.text):
      return "depthwise"
    if _UPDATE.search(self.op_name) or "optax" in self.op_name:
      return "optimizer"
    product = re.search(r" (convolution|dot)\(", f" {self.opcode}({self.text}")
    if product or "pointwise_conv_bn" in self.name:
      return "pointwise"
    return "normalisation"


KINDS = (
  "depthwise",
  "pointwise",
  "normalisation",
  "optimizer",
  "collectives",
)
"""Purposes of instructions.

"pointwise" has all convolutions but the depthwise ones, and matrix products;
"optimizer" the update, and packing or moving gradients and weights;
"normalisation" the rest: batch norm's sums, activations, gates, losses, copies.
"""


def read_instructions(hlo: str) -> dict[str, Instruction]:
  """Return a program's instructions by name, but those inside fusions."""
  lines: list[str] = []
  computations = {"": lines}
  for line in hlo.splitlines():
    if line.endswith("{") and not line.startswith(" "):
      name = line.removeprefix("ENTRY ").split()[0].lstrip("%")
      lines = computations.setdefault(name, [])
    else:
      lines.append(line)
  fused = set(re.findall(r" fusion\(.*?calls=%([\w.\-]+)", hlo))
  found = {}
  for name, lines in computations.items():
    for line in lines if name not in fused else ():
      match = _INSTRUCTION.match(line)
      if match:
        called = re.findall(r"(?:calls|to_apply)=%([\w.\-]+)", line)
        bodies = [
          body for name in called for body in computations.get(name, [])
        ]
        text = "\n".join([match[4], *bodies])
        found[match[1]] = Instruction(match[1], match[2], match[3], text)
  return found


def bytes_of(shapes: str) -> int:
  """Add up the sizes of the arrays in a text, without the padding of tiles.

  >>> bytes_of("(f32[8]{0:T(256)}, bf16[4,2]{1,0})")
  48
  """
  return sum(
    int(bits) // 8 * math.prod(map(int, filter(None, dims.split(","))))
    for _, bits, dims in _SHAPE.findall(shapes)
  )


def _is_depthwise(text: str) -> bool:
  counts = re.findall(r"(?:feature|batch)_group_count=(\d+)", text)
  return any(int(count) > 1 for count in counts)


def _group_size(text: str) -> int:
  """Return the number of devices in one group of a collective.

  >>> _group_size("replica_groups={{0,1},{2,3}}, x")
  2
  >>> _group_size("replica_groups=[4,8]<=[32]")
  8
  >>> _group_size("replica_groups=mesh['a'=2,'b'=4] {'b'}, x")
  4
  """
  match = re.search(r"replica_groups=(\{\{|\[|mesh\[|\{\})([^\]}]*)(.*)", text)
  if not match:
    raise ValueError(
      "no replica groups in a known format ({{..}}, [..] or mesh[..]) in the "
      f"collective {text[:200]}"
    )
  opening, inside, rest = match.groups()
  if opening == "{}":
    return 0
  if opening == "{{":
    return inside.count(",") + 1
  if opening == "[":
    return int(inside.split(",")[1])
  sizes = dict(re.findall(r"'(\w+)'=(\d+)", inside))
  axes = re.findall(r"'(\w+)'", rest.partition("}")[0])
  return math.prod(int(sizes[axis]) for axis in axes)
