"""Where the devices of a slice stand, and compact tiles of them."""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import jax

Coordinates = tuple[int, ...]
"""Of a chip, along each dimension of the torus."""
Rings = tuple[tuple[int, ...], ...]
"""Devices by their numbers, ring by ring."""


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
  chips = _chips(devices)
  if chips is None:
    return None
  sides = _sides(chips)
  tile = tile_shape(sides, len(devices) // len(chips), group_size)
  if tile is None:
    return None
  return [
    core
    for corner in _corners(sides, tile)
    for offset in _cycle(tile)
    for core in chips[tuple(map(sum, zip(corner, offset, strict=True)))]
  ]


def slice_sides(devices: Sequence[jax.Device]) -> tuple[Coordinates, int]:
  """Chips along each dimension of a slice, and devices on a chip.

  Raises:
    ValueError: the devices have no coordinates, or do not fill a box.
  """
  chips = _chips(devices)
  if chips is None:
    raise ValueError(f"{len(devices)} devices do not fill a box of chips")
  return _sides(chips), len(devices) // len(chips)


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
    for box in product(*map(_divisors, sides))
    if math.prod(box) == chips and not rest
  ]
  return min(boxes, key=lambda box: (sum(box), box[2:], box), default=None)


def torus_rings(devices: Sequence[jax.Device]) -> tuple[Rings, ...]:
  """For each dimension of the torus the rings along it, longest rings first.

  The cores of a chip belong to the rings along the first dimension. Devices
  without coordinates, or whose chips do not fill a box, are taken for a grid as
  square as their number allows.

  Returns:
    For each dimension groups of indices into `devices`, each index once; two
    devices share at most one group.
  """
  chips = _chips(devices)
  if chips is None:
    place = _grid(len(devices))
  else:
    place = {}
    numbers = {_key(device): i for i, device in enumerate(devices)}
    for chip, cores in chips.items():
      for core in cores:
        place[numbers[_key(core)]] = (
          chip[0] * len(cores) + cores.index(core),
          *chip[1:],
        )
  rings = [_along(place, axis) for axis in range(len(place[0]))]
  return tuple(
    sorted(
      (ring for ring in rings if len(ring[0]) > 1),
      key=lambda ring: -len(ring[0]),
    )
  )


def hops(a: jax.Device, b: jax.Device) -> int:
  """Links between the chips of two devices, not using wrap-around links."""
  pairs = zip(_coordinates(a), _coordinates(b), strict=True)
  return sum(abs(i - j) for i, j in pairs)


def _chips(
  devices: Sequence[jax.Device],
) -> dict[Coordinates, list[jax.Device]] | None:
  """Each chip's cores by the chip's place in the box, if they fill one."""
  if not all(getattr(device, "coords", None) for device in devices):
    return None
  places = [_coordinates(device) for device in devices]
  first = [min(axis) for axis in zip(*places, strict=True)]
  chips: dict[Coordinates, list[jax.Device]] = {}
  for place, device in sorted(
    zip(places, devices, strict=True), key=lambda pair: _core(pair[1])
  ):
    here = tuple(i - j for i, j in zip(place, first, strict=True))
    chips.setdefault(here, []).append(device)
  volume = math.prod(1 + max(axis) for axis in zip(*chips, strict=True))
  even = len({len(cores) for cores in chips.values()}) == 1
  distinct = len(set(map(_key, devices))) == len(devices)
  return chips if volume == len(chips) and even and distinct else None


def _sides(chips: dict[Coordinates, list[jax.Device]]) -> Coordinates:
  return tuple(1 + last for last in max(chips))


def _grid(size: int) -> dict[int, Coordinates]:
  """A number of devices in rows, as square as it goes."""
  columns = next(d for d in _divisors(size) if d * d >= size)
  return {i: divmod(i, columns) for i in range(size)}


def _along(place: dict[int, Coordinates], axis: int) -> Rings:
  rings: dict[Coordinates, list[int]] = {}
  for number in sorted(place, key=lambda number: place[number]):
    others = place[number][:axis] + place[number][axis + 1 :]
    rings.setdefault(others, []).append(number)
  return tuple(map(tuple, rings.values()))


def _key(device: Any) -> tuple[Coordinates, int]:
  return _coordinates(device), _core(device)


def _coordinates(device: Any) -> Coordinates:
  return tuple(device.coords)


def _core(device: Any) -> int:
  return getattr(device, "core_on_chip", 0)


def _divisors(size: int) -> list[int]:
  return [d for d in range(1, size + 1) if size % d == 0]


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
