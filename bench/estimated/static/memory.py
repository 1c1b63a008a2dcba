"""DMAs to and from HBM, the flags that they raise, and scalar memory.

The DMAs that run share the channel, see `Channel`; each arrives a latency after
its last byte. Reads and writes share it, and a copy from HBM to HBM crosses it
twice. Transfers inside the chip take the latency alone. A wait for a flag
stalls until the DMAs that raise the flag have moved the granules that the wait
names.
"""

import dataclasses
import re
from collections import Counter, defaultdict
from typing import Any, NamedTuple

from ...chips import Chip
from .addresses import is_private, page
from .bundles import Operation
from .channel import Channel, Transfer
from .operations import signed
from .unknown import UNKNOWN

_SPACES = {"hbm", "vmem", "smem", "cmem"}
_WORDS_PER_GRANULE = 4  # bytes in a word of scalar memory
# On v2 and v3 eight words describe a DMA; bits of two words name the memories.
_DESCRIBED_ROUTES = {
  (512, 512): "hbm->hbm",
  (512, 1024): "hbm->vmem",
  (1024, 512): "vmem->hbm",
  (1024, 1024): "vmem->vmem",
}


@dataclasses.dataclass
class Traffic:
  """Bytes and stalls of one routine, over all its calls."""

  dmas: int = 0
  stall_cycles: float = 0.0
  bytes: Counter[str] = dataclasses.field(default_factory=Counter)
  notes: Counter[str] = dataclasses.field(default_factory=Counter)

  @property
  def hbm_bytes(self) -> int:
    """Bytes that crossed the HBM channel."""
    return sum(n * route.count("hbm") for route, n in self.bytes.items())


class _Pending(NamedTuple):
  """DMA that no wait has taken; without granules its size is unknown."""

  route: str
  granules: int | None = None
  transfer: Transfer | None = None


class Memory:
  """State of the scalar memory, flags and HBM channel of one core.

  Attributes:
    words: Scalar memory by address.
    traffic: Counts of DMAs and stalls of the running routine.
  """

  def __init__(self, chip: Chip, pages: set[int]):
    """Make an idle channel.

    Args:
      chip: Chip of the core.
      pages: Pages of this core's addresses; other flags are other cores'.
    """
    self._chip = chip
    self._pages = pages
    self._channel = Channel(chip.bytes_per_cycle, chip.dma_share)
    self._flags: Counter[int] = Counter()
    self._pending: dict[int, list[_Pending]] = defaultdict(list)
    self.words: dict[Any, Any] = {}
    self.traffic = Traffic()

  def add_to_flag(self, o: Operation, flag: Any, value: Any) -> None:
    """Add a signed value to a flag (`vsyncadd`)."""
    if flag is UNKNOWN or value is UNKNOWN:
      self.traffic.notes[f"{o.name} of unknown flag or value"] += 1
    else:
      self._flags[flag] += signed(value)

  def set_flag(self, o: Operation, flag: Any, value: Any) -> None:
    """Set or clear a flag (`vsyncset`, `vsyncpa`)."""
    if flag is UNKNOWN or value is UNKNOWN:
      self.traffic.notes[f"{o.name} of unknown flag or value"] += 1
    else:
      self._flags[flag] = value

  def wait(self, now: float, o: Operation, flag: Any, needed: Any) -> float:
    """Return the cycle at which a flag has `needed` granules."""
    notes = self.traffic.notes
    if flag is UNKNOWN or needed is UNKNOWN:
      notes[f"{o.name} {o.note} on unknown flag or value"] += 1
      return now
    needed, until = signed(needed), now
    queue = self._pending[flag]
    while self._flags[flag] < needed and queue:
      dma = queue.pop(0)
      granules, transfer = dma.granules, dma.transfer
      if granules is None or transfer is None:
        granules = needed - self._flags[flag]
        transfer = self._transfer(now, granules, dma.route)
      self._flags[flag] += granules
      until = max(until, self._channel.end(transfer) + self._chip.latency)
    if self._flags[flag] < needed:
      notes[f"{o.name} {o.note} never satisfied here, taken as free"] += 1
      self._flags[flag] = needed
    self.traffic.stall_cycles += until - now
    return until

  def start(
    self, now: float, o: Operation, route: str, size: Any, flag: Any, to: Any
  ) -> None:
    """Start a DMA.

    Args:
      now: Current cycle.
      o: Operation.
      route: Source and target, such as `hbm->vmem`.
      size: Size in granules.
      flag: Flag that rises by the size on arrival.
      to: Address in scalar memory that the DMA overwrites, or None.
    """
    on_this_core = flag is not UNKNOWN and page(flag) in self._pages
    if not on_this_core or set(route.split("->")) - _SPACES:
      self._not_modelled(o, route)
      return
    self._begin(now, route, size, flag)
    if route.endswith("smem") and to is not None and to is not UNKNOWN:
      granules = 16 if size is UNKNOWN else size or 16
      for i in range(granules * self._chip.granule // _WORDS_PER_GRANULE):
        self.words.pop(to + i, None)

  def start_described(self, now: float, o: Operation, at: Any) -> None:
    """Start a DMA of v2 or v3, described by eight words of scalar memory."""
    word = self.words.get
    target, source = word(at + 1, UNKNOWN), word(at + 4, UNKNOWN)
    size, flag = word(at + 6, UNKNOWN), word(at + 7, UNKNOWN)
    # The upper half of source and target is the core; this one is core 0.
    if source is UNKNOWN or target is UNKNOWN or (source | target) >> 16:
      self._not_modelled(o, "to or from another core")
      return
    route = _DESCRIBED_ROUTES.get((source & 0xFE00, target & 0xFE00))
    if not route:
      self._not_modelled(o, "to or from an unknown memory")
      return
    # Size and flag share their words with other bits.
    self._begin(now, route, size & 0x3FFFFF, flag & ~0x1C00)

  def release(self) -> None:
    """Forget the private state of the routine that ended."""
    for state in self.words, self._flags, self._pending:
      for address in [a for a in state if is_private(a)]:
        del state[address]

  def hold_back(self, until: float) -> None:
    """Free the channel at cycle `until` at the latest."""
    self._channel.end_all(until)

  def _begin(self, now: float, route: str, size: Any, flag: Any) -> None:
    if size is UNKNOWN:
      self.traffic.notes[f"DMA {route} of unknown size: from its wait"] += 1
      self._pending[flag].append(_Pending(route))
    elif size:
      transfer = self._transfer(now, size, route)
      self._pending[flag].append(_Pending(route, size, transfer))

  def _not_modelled(self, o: Operation, route: str) -> None:
    note = f"{o.name} {route} not modelled (remote, host or unknown target)"
    self.traffic.notes[note] += 1

  def _transfer(self, now: float, granules: int, route: str) -> Transfer:
    """Start to move granules."""
    size = granules * self._chip.granule
    crossings = route.split("->").count("hbm")
    self.traffic.dmas += 1
    self.traffic.bytes[route] += size
    if not crossings:
      self.traffic.notes[f"DMA {route} on the chip: only its latency"] += 1
      return Transfer(0.0, now)
    return self._channel.start(now, crossings * size)


def dma_route(o: Operation, spaces: dict[str, str]) -> str:
  """Return a DMA's source and target memory, such as `hbm->vmem`.

  Args:
    o: `dma.hbm_to_vmem`, or `dma.general` with both ends among the labels.
    spaces: Memory that each register points to.
  """
  if o.name != "dma.general":
    return o.name.removeprefix("dma.").replace("_to_", "->")
  noted = re.search(r"\b(\w+)-to-(\w+)", o.note)
  ends = []
  for i, label in enumerate(("src", "dst"), start=1):
    register = o.labels.get(label)
    space = spaces.get(register) if isinstance(register, str) else None
    ends.append(space or (noted and noted[i]))
  return f"{ends[0]}->{ends[1]}"
