"""Compact tiles of the torus, one for each group of devices."""

import math
from collections.abc import Iterator, Sequence
from itertools import product

import jax

from .torus import Coordinates, chips_of, sides_of


def tile_order(
  devices: Sequence[jax.Device], group_size: int
) -> list[jax.Device] | None:
  """Order devices so that every `group_size` in a row form a compact tile.

  Inside a tile the chips follow each other in snake order, and the last chip is
  a neighbour of the first if both sides are even. The cores of a chip follow
  each other.

  Args:
    devices: Devices of one slice, in any order.
    group_size: Number of devices in a tile, a divisor of their number.

  Returns:
    Devices in order, or None if the devices have no coordinates, their chips do
    not fill a box, or no box holds a group.
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
  """Find the sides of the most compact box of chips for a group, or None.

  The most compact box has the smallest sum of sides. Between equal sums the
  flattest wins, because the chips of a host lie in a plane.

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
  """List the chips of a box along a closed ring of single links, if any.

  The ring is a snake through all but the first column, and back along the first
  column. A box with an odd number of chips, or a row of more than two, has no
  such ring and gets a plain snake.

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
  """List the chips of a box, each a neighbour of the one before.

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
  """List all divisors in ascending order."""
  return [d for d in range(1, size + 1) if size % d == 0]
