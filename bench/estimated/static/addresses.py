"""Addresses for the allocations that a program names but does not place.

The bundles say `#allocation3` where the machine has an address. Programs only
compare and subtract addresses inside one allocation, so any will do that

* stay positive when shifted left by 4, as pointers of DMAs are;
* keep bits 10 to 12 clear, which v2 and v3 use in the word of a flag;
* do not overlap, neither as words of scalar memory nor as flags.

There are more allocations in a network than such addresses. One kernel runs at
a time, so each numbers its own from the start; the top level's live throughout
and are numbered apart. When all are taken, the second half of each allocation's
1,024 words is another's, and then the second half of either: no use of so many
was seen.
"""

_ROWS = 511  # allocations in one bank
_PARTS = (0, 512, 256, 768)  # words into an allocation's 1,024
_KERNEL_BANKS = 4  # of 32; the rest is the top level's
_SPILLS = 100_000  # words for spilled scalars
_FIRST_SPILL = 4096
_TOP_SPILL = 1 << 17
_FIRST_ROW = 1 << 18


class Addresses:
  """The addresses of one kernel or of the top level.

  >>> addresses = Addresses(top_level=False)
  >>> addresses["#allocation3"] == addresses["#allocation3"]
  True
  >>> is_private(addresses["#allocation4"])
  True
  >>> is_private(addresses["operand 0"])  # lives on when the kernel ends
  False
  """

  def __init__(self, *, top_level: bool):
    self._top_level = top_level
    self._named: dict[str, int] = {}
    self._spills = 0
    self._rows = 0

  def __getitem__(self, name: str) -> int:
    if name not in self._named:
      is_spill = name.endswith("_spill")
      self._named[name] = self._spill() if is_spill else self._row(name)
    return self._named[name]

  def pages(self) -> set[int]:
    """What `page` gives for the addresses handed out so far."""
    return {page(address) for address in self._named.values()}

  def _spill(self) -> int:
    self._spills += 1
    if self._spills > _SPILLS:
      raise ValueError(f"more than {_SPILLS} spilled scalars")
    return _FIRST_SPILL + self._spills - 1 + _TOP_SPILL * self._top_level

  def _row(self, name: str) -> int:
    is_top = self._top_level or name.startswith("operand")
    banks = 32 - _KERNEL_BANKS if is_top else _KERNEL_BANKS
    part, place = divmod(self._rows, banks * _ROWS)
    if part == len(_PARTS):
      raise ValueError(f"more than {self._rows} allocations")
    self._rows += 1
    bank, row = divmod(place, _ROWS)
    bank += _KERNEL_BANKS * is_top
    return (row + 1) * _FIRST_ROW | bank << 13 | _PARTS[part]


def page(address: int) -> int:
  """What all addresses in an allocation share."""
  return address >> 13


def is_private(address: int) -> bool:
  """Whether the address is of a kernel, and free again when the kernel ends."""
  if address < _FIRST_ROW:
    return address < _TOP_SPILL
  return page(address) & 31 < _KERNEL_BANKS
