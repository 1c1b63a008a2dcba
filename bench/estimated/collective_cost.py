"""What collectives take on a TPU's torus: latency and bandwidth, a model.

No constant was fitted, and nothing was compared with a real TPU. A message
waits `HOP_US` for every link on its way and then flows at `LINK_GB_PER_S`;
which links a collective uses is that of the algorithm that libtpu says, in the
compiled program, that it has chosen. Waiting for slower devices and launching
are not in it, so that real collectives take longer.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

LINK_GB_PER_S = {
  "v3": 83.0,
  "v4": 45.0,
  "v5e": 50.0,
  "v5p": 100.0,
  "v6e": 100.0,
  "tpu7x": 100.0,
}
"""One link in one direction, 1e9 bytes a second.

cloud.google.com/tpu/docs: the all-reduce bandwidth of a pod over its chips and
their ports: v3 340 TB/s over 1,024 chips and 4 ports, v4 1.1 PB/s over 4,096
and 6, v5e 51.2 TB/s over 256 and 4, v6e 102.4 TB/s over 256 and 4. v5p and
tpu7x: 1,200 GB/s a chip, both directions, over 6 ports.
"""

HOP_US = 1.0
"""One link's latency. Austin et al. 2025, "How to Scale Your Model", part 3,
has about 1 us for a hop of v5e; from memory, and taken for all generations."""


class Slice(NamedTuple):
  """A box of chips: a whole slice, or the tile of a group.

  Attributes:
    chip: One of `LINK_GB_PER_S`.
    sides: chips along each dimension.
    cores: devices on a chip.
  """

  chip: str
  sides: tuple[int, ...]
  cores: int

  @property
  def devices(self) -> int:
    """How many there are."""
    return math.prod(self.sides) * self.cores

  @property
  def hops(self) -> int:
    """Links between its farthest chips, without wrap-around links."""
    return sum(self.sides) - len(self.sides)

  def transfer_us(self, bytes_: float) -> float:
    """What one link takes for so many bytes."""
    return bytes_ / (LINK_GB_PER_S[self.chip] * 1e3)


def exchange_us(bytes_: float, tile: Slice) -> float:
  """An all-reduce in which every device sends to every other at once.

  `collectives.exchange`. Messages take the first dimension first; the busiest
  link is one in the middle of a dimension, which carries what half of a row
  sends to all beyond it.

  >>> round(exchange_us(8192, Slice("v3", (2, 2, 1), 2)), 1)
  4.8
  """
  if tile.devices == 1:
    return 0
  chips = math.prod(tile.sides)
  crossing = (
    (side // 2) * (side - side // 2) * chips // side for side in tile.sides
  )
  busiest = max(crossing) * tile.cores**2
  # Before the messages a barrier, in which a signal travels as far.
  return 2 * max(1, tile.hops) * HOP_US + tile.transfer_us(busiest * bytes_)


def ring_us(bytes_: float, tile: Slice) -> float:
  """An all-reduce that sends the whole of each message once around the ring.

  What XLA does in small groups: `SinglePhaseRingSumEmitter`.

  >>> round(ring_us(8192, Slice("v3", (2, 2, 1), 2)), 1)
  8.7
  """
  if tile.devices == 1:
    return 0
  barrier = HOP_US  # between neighbours
  return barrier + (tile.devices - 1) * (HOP_US + tile.transfer_us(bytes_))


def all_reduce_us(bytes_: float, slice_: Slice) -> float:
  """XLA's all-reduce over a whole slice: `RotatedPincer`, `StrategyND`.

  As many parts as there are dimensions, each taking them in another order: in
  each dimension a reduce-scatter, from both sides, and back an all-gather.

  >>> round(all_reduce_us(121.6e6, Slice("v3", (16, 32, 1), 2)))
  796
  """
  rings = _rings(slice_)
  if not rings:
    return 0
  part = bytes_ / len(rings)
  slowest = 0.0
  for first in range(len(rings)):
    left, us = part, 0.0
    for ring in (*rings[first:], *rings[:first]):
      us += one_way_us(left / 2, ring, slice_) - (ring - 1 - ring // 2) * HOP_US
      left /= ring
    slowest = max(slowest, us)
  return 2 * slowest


def scatter_us(bytes_: float, slice_: Slice) -> float:
  """`scatter_mean` of so many bytes, or gathering shards to them again.

  XLA runs each of its reduce-scatters on one ring in one direction:
  `StrategyRing` with one colour.

  >>> round(scatter_us(121.6e6, Slice("v3", (16, 32, 1), 2)))
  1526
  """
  us, left = 0.0, bytes_
  for ring in sorted(_rings(slice_), reverse=True):
    us += one_way_us(left, ring, slice_)
    left /= ring
  return us


def _rings(slice_: Slice) -> Sequence[int]:
  """Devices along each dimension; the cores count along the first."""
  sides = (slice_.sides[0] * slice_.cores, *slice_.sides[1:])
  return [side for side in sides if side > 1]


def one_way_us(bytes_: float, ring: int, slice_: Slice) -> float:
  """A reduce-scatter, or an all-gather, in one direction of a ring.

  Args:
    bytes_: Of the whole, before it is scattered or when it is gathered.
    ring: Devices along it.
    slice_: Whose links it has.
  """
  steps = ring - 1
  return steps * (HOP_US + slice_.transfer_us(bytes_ / ring))
