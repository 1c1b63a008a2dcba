"""Groups of devices that are compact tiles of the torus."""

import math
from collections.abc import Iterator, Sequence
from itertools import product

import jax

from .torus import Coordinates, chips_of, sides_of


def tile_order(
  devices: Sequence[jax.Device], group_size: int
) -> list[jax.Device] | None:
  """Devices such that every `group_size` in a row are a compact tile.

  Inside a tile the chips follow each other in snake order, and the last is the
  first's neighbour wherever both sides are even; the cores of a chip stand
  beside each other.

  Args:
    devices: of one slice, in any order.
    group_size: devices in a tile; divides their number.

  Returns:
    None where there is no such tile: devices without coordinates, chips that
    do not fill a box, or a group that no box holds.
  """
  chips = chips_of(devices)
  if chips is None:
    return None
  sides = sides_of(chips)
  tile = tile_shape(sides, len(devices) // len(chips), group_size)
  if tile is None:
    return None
  return [
    core
    for corner in _corners(sides, tile)
    for offset in _cycle(tile)
    for core in chips[tuple(map(sum, zip(corner, offset, strict=True)))]
  ]


def tile_shape(
  sides: Sequence[int], cores: int, group_size: int
) -> Coordinates | None:
  """Sides of the most compact box of chips that holds a group, or None.

  That with the shortest sum of sides; of those the flattest, for a host's chips
  lie in a plane.

  >>> tile_shape((16, 32, 1), cores=2, group_size=64)
  (4, 8, 1)
  """
  if group_size < cores:
    fits = cores % group_size == 0
    return (1,) * len(sides) if fits else None
  chips, rest = divmod(group_size, cores)
  boxes = [
    box
    for box in product(*map(divisors, sides))
    if math.prod(box) == chips and not rest
  ]
  return min(boxes, key=lambda box: (sum(box), box[2:], box), default=None)


def _corners(sides: Coordinates, tile: Coordinates) -> Iterator[Coordinates]:
  steps = zip(sides, tile, strict=True)
  return product(*(range(0, side, step) for side, step in steps))


def _cycle(sides: Coordinates) -> list[Coordinates]:
  """The chips of a box on a closed walk of single links, where there is one.

  A snake through all but the first column, and back along that column. An odd
  box, and a row of more than two, are walked once: the way back is longer.

  >>> _cycle((2, 3))
  [(0, 1), (0, 2), (1, 2), (1, 1), (1, 0), (0, 0)]
  """
  if sides[-1] == 1 and len(sides) > 1:
    return [(*place, 0) for place in _cycle(sides[:-1])]
  if math.prod(sides[:-1]) % 2 or sides[-1] == 1:
    return _snake(sides)
  rows = _snake(sides[:-1])
  away = _snake((len(rows), sides[-1] - 1))
  return [(*rows[i], 1 + j) for i, j in away] + [
    (*row, 0) for row in reversed(rows)
  ]


def _snake(sides: Coordinates) -> list[Coordinates]:
  """The chips of a box, each a neighbour of the one before.

  >>> _snake((2, 3))
  [(0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (1, 0)]
  """
  if not sides:
    return [()]
  rest = _snake(sides[1:])
  return [
    (i, *place)
    for i in range(sides[0])
    for place in (rest if i % 2 == 0 else rest[::-1])
  ]


def divisors(size: int) -> list[int]:
  """All of them, the smallest first."""
  return [d for d in range(1, size + 1) if size % d == 0]
