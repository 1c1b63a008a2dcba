"""HBM of one core, whose bandwidth the running DMAs share equally."""

import dataclasses
import heapq
import itertools


@dataclasses.dataclass
class Transfer:
  """DMA that moves bytes.

  Attributes:
    finish: Bytes that each running DMA must have moved, since the start of the
      program, when this one ends.
    ended: Cycle in which the last byte moved; None while it runs.
  """

  finish: float
  ended: float | None = None


class Channel:
  """HBM bandwidth, shared by the DMAs that run at the same time.

  Args:
    bytes_per_cycle: Bandwidth of all DMAs together.
    share: Share of it that one DMA reaches by itself.
  """

  def __init__(self, bytes_per_cycle: float, share: float):
    self._bytes_per_cycle = bytes_per_cycle
    self._share = share
    self._now = 0.0
    # Bytes that a DMA has moved that runs since the start of the program.
    self._moved = 0.0
    self._running: list[tuple[float, int, Transfer]] = []
    self._numbers = itertools.count()

  def start(self, now: float, size: float) -> Transfer:
    """Start to move bytes at a cycle."""
    self._advance(now)
    transfer = Transfer(self._moved + size)
    entry = (transfer.finish, next(self._numbers), transfer)
    heapq.heappush(self._running, entry)
    return transfer

  def end(self, transfer: Transfer) -> float:
    """Return the cycle in which the last byte moves.

    No DMA may start before that cycle afterwards.
    """
    while transfer.ended is None:
      self._end_next()
    return transfer.ended

  def end_all(self, now: float) -> None:
    """End all running DMAs at a cycle."""
    for _, _, transfer in self._running:
      transfer.ended = now
    self._running.clear()

  def _advance(self, now: float) -> None:
    """Let the DMAs run until a cycle."""
    while self._running and self._next_end() <= now:
      self._end_next()
    if self._running and now > self._now:
      self._moved += self._rate() * (now - self._now)
    self._now = max(self._now, now)

  def _rate(self) -> float:
    """Return the bytes that each running DMA moves in a cycle."""
    return self._bytes_per_cycle * min(self._share, 1 / len(self._running))

  def _next_end(self) -> float:
    left = self._running[0][0] - self._moved
    return self._now + left / self._rate()

  def _end_next(self) -> None:
    self._now = self._next_end()
    self._moved, _, transfer = heapq.heappop(self._running)
    transfer.ended = self._now
