"""Rings of devices along each dimension of the torus."""

from collections.abc import Sequence

import jax

from .tiles import divisors
from .torus import Coordinates, chips_of, device_key

Rings = tuple[tuple[int, ...], ...]
"""Indices of devices, ring by ring."""


def torus_rings(devices: Sequence[jax.Device]) -> tuple[Rings, ...]:
  """List the rings along each dimension of the torus, longest rings first.

  The cores of a chip belong to the rings along the first dimension. Devices
  without coordinates, or whose chips do not fill a box, count as a grid that is
  as square as their number allows.

  Args:
    devices: Devices of one slice, in any order.

  Returns:
    Groups of indices into `devices` for each dimension, each index once; two
    devices share at most one group.
  """
  chips = chips_of(devices)
  if chips is None:
    place = _grid(len(devices))
  else:
    place = {}
    numbers = {device_key(device): i for i, device in enumerate(devices)}
    for chip, cores in chips.items():
      for core in cores:
        place[numbers[device_key(core)]] = (
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


def _grid(size: int) -> dict[int, Coordinates]:
  """Return the row and column of each device on the squarest grid."""
  columns = next(d for d in divisors(size) if d * d >= size)
  return {i: divmod(i, columns) for i in range(size)}


def _along(place: dict[int, Coordinates], axis: int) -> Rings:
  rings: dict[Coordinates, list[int]] = {}
  for number in sorted(place, key=lambda number: place[number]):
    others = place[number][:axis] + place[number][axis + 1 :]
    rings.setdefault(others, []).append(number)
  return tuple(map(tuple, rings.values()))
