"""Addresses for the allocations that a program names but does not place.

The bundles have `#allocation3` where the machine has an address. Programs only
compare and subtract addresses inside one allocation, so any addresses do that

* stay positive when shifted left by 4, as pointers of DMAs are;
* keep bits 10 to 12 clear, which v2 and v3 use in the word of a flag;
* do not overlap, neither as words of scalar memory nor as flags.

A network has more allocations than there are such addresses. One routine runs
at a time, so each routine numbers its own from the start; the top level's live
throughout and have numbers of their own. When all are taken, the second half of
each allocation's 1,024 words goes to another one, and then the second half of
either half. No program that was seen uses so many words of an allocation.
"""

_ROWS = 511  # allocations in one bank
_PARTS = (0, 512, 256, 768)  # words into an allocation's 1,024
_BANKS = 32
_ROUTINE_BANKS = 4  # the rest is the top level's
_SPILLS = 100_000  # words for spilled scalars
_FIRST_SPILL = 4096
_TOP_SPILL = 1 << 17
_FIRST_ROW = 1 << 18


class Addresses:
  """Addresses of one routine or of the top level.

  >>> addresses = Addresses(top_level=False)
  >>> addresses["#allocation3"] == addresses["#allocation3"]
  True
  >>> is_private(addresses["#allocation4"])
  True
  >>> is_private(addresses["operand 0"])  # lives on when the routine ends
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
    """Return the pages of all addresses handed out so far."""
    return {page(address) for address in self._named.values()}

  def _spill(self) -> int:
    self._spills += 1
    if self._spills > _SPILLS:
      raise ValueError(f"more than {_SPILLS} spilled scalars in a routine")
    return _FIRST_SPILL + self._spills - 1 + _TOP_SPILL * self._top_level

  def _row(self, name: str) -> int:
    is_top = self._top_level or name.startswith("operand")
    banks = _BANKS - _ROUTINE_BANKS if is_top else _ROUTINE_BANKS
    part, place = divmod(self._rows, banks * _ROWS)
    if part == len(_PARTS):
      raise ValueError(f"more than {self._rows} allocations in a routine")
    self._rows += 1
    bank, row = divmod(place, _ROWS)
    bank += _ROUTINE_BANKS * is_top
    return (row + 1) * _FIRST_ROW | bank << 13 | _PARTS[part]


def page(address: int) -> int:
  """Return the part that all addresses in an allocation share."""
  return address >> 13


def is_private(address: int) -> bool:
  """Return True if an address is free again when its routine ends."""
  if address < _FIRST_ROW:
    return address < _TOP_SPILL
  return page(address) & (_BANKS - 1) < _ROUTINE_BANKS
