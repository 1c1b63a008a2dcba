"""Times of collectives on a TPU's torus, by a model of latency and bandwidth.

XLA's collectives go in steps. In each a device synchronises with its neighbour,
which takes `Chip.step_us`, and sends bytes at the bandwidth that links reach.
The steps are those of the algorithm that libtpu names in the compiled program.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from ..chips import Chip

HOP_US = 1.0
"""Latency of one link for a message that a kernel sends by itself.

Austin et al. 2025, "How to Scale Your Model", part 3, has about 1 us for a hop
of v5e. No measurement of it was found; used for all generations.
"""


class Slice(NamedTuple):
  """A box of chips: a whole slice, or the tile of a group.

  Attributes:
    chip: Chip at each place of the box.
    sides: Chips along each dimension.
    cores: Devices on a chip.
  """

  chip: Chip
  sides: tuple[int, ...]
  cores: int

  @property
  def devices(self) -> int:
    """Number of devices."""
    return math.prod(self.sides) * self.cores

  @property
  def hops(self) -> int:
    """Links between the farthest chips, without wrap-around links."""
    return sum(self.sides) - len(self.sides)

  def transfer_us(self, bytes_: float) -> float:
    """Compute the time in which bytes flow over one link."""
    chip = self.chip
    return bytes_ / (chip.link_gb_per_s * chip.link_efficiency * 1e3)


def exchange_us(bytes_: float, tile: Slice) -> float:
  """Estimate an all-reduce in which every device sends to every other at once.

  This is `collectives.exchange`. Messages take the first dimension first. The
  busiest link is in the middle of a dimension: it carries the messages of half
  a row to all devices beyond.

  >>> from podscale.bench.chips import CHIPS
  >>> round(exchange_us(8192, Slice(CHIPS["v3"], (2, 2, 1), 2)), 1)
  4.9
  """
  if tile.devices == 1:
    return 0
  chips = math.prod(tile.sides)
  crossing = (
    (side // 2) * (side - side // 2) * chips // side for side in tile.sides
  )
  busiest = max(crossing) * tile.cores**2
  # A barrier comes before the messages; its signal travels as far.
  return 2 * max(1, tile.hops) * HOP_US + tile.transfer_us(busiest * bytes_)


def ring_us(bytes_: float, tile: Slice) -> float:
  """Estimate an all-reduce that sends each whole message around the ring.

  XLA does this in small groups: `SinglePhaseRingSumEmitter`.

  >>> from podscale.bench.chips import CHIPS
  >>> round(ring_us(8192, Slice(CHIPS["v3"], (2, 2, 1), 2)), 1)
  24.0
  """
  if tile.devices == 1:
    return 0
  barrier = tile.chip.step_us
  steps = tile.devices - 1
  return barrier + steps * (tile.chip.step_us + tile.transfer_us(bytes_))


def all_reduce_us(bytes_: float, slice_: Slice) -> float:
  """Estimate XLA's all-reduce over a whole slice.

  XLA names it `RotatedPincer`, `StrategyND`: it cuts the buffer in as many
  parts as the slice has dimensions. Each part takes the dimensions in another
  order, with a reduce-scatter from both sides in each, and an all-gather back.

  >>> from podscale.bench.chips import CHIPS
  >>> round(all_reduce_us(121.6e6, Slice(CHIPS["v3"], (16, 32, 1), 2)))
  1017
  """
  rings = _rings(slice_)
  if not rings:
    return 0
  part = bytes_ / len(rings)
  slowest = 0.0
  for first in range(len(rings)):
    left, us = part, 0.0
    for ring in (*rings[first:], *rings[:first]):
      us += one_way_us(left / 2, ring, slice_)
      us -= (ring - 1 - ring // 2) * slice_.chip.step_us  # from both sides
      left /= ring
    slowest = max(slowest, us)
  return 2 * slowest


def scatter_us(bytes_: float, slice_: Slice) -> float:
  """Estimate `scatter_mean` of a buffer, or `gather_shards` to a buffer.

  XLA runs each of the reduce-scatters on one ring in one direction:
  `StrategyRing` with one colour.

  >>> from podscale.bench.chips import CHIPS
  >>> round(scatter_us(121.6e6, Slice(CHIPS["v3"], (16, 32, 1), 2)))
  1843
  """
  us, left = 0.0, bytes_
  for ring in sorted(_rings(slice_), reverse=True):
    us += one_way_us(left, ring, slice_)
    left /= ring
  return us


def _rings(slice_: Slice) -> Sequence[int]:
  """Count devices along each dimension; the cores count along the first."""
  sides = (slice_.sides[0] * slice_.cores, *slice_.sides[1:])
  return [side for side in sides if side > 1]


def one_way_us(bytes_: float, ring: int, slice_: Slice) -> float:
  """Estimate a reduce-scatter or all-gather in one direction of a ring.

  Args:
    bytes_: Size of the whole buffer, before scattering or after gathering.
    ring: Number of devices in the ring.
    slice_: Slice whose links the ring uses.
  """
  steps = ring - 1
  return steps * (slice_.chip.step_us + slice_.transfer_us(bytes_ / ring))
