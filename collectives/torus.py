"""Where the devices of a slice stand."""

import math
from collections.abc import Sequence
from typing import Any

import jax

Coordinates = tuple[int, ...]
"""Of a chip, along each dimension of the torus."""
Chips = dict[Coordinates, list[jax.Device]]
"""The devices of each chip of a slice, by its place in the box of chips."""


def chips_of(
  devices: Sequence[jax.Device],
) -> Chips | None:
  """Each chip's cores by the chip's place in the box, if they fill one."""
  if not all(getattr(device, "coords", None) for device in devices):
    return None
  places = [_coordinates(device) for device in devices]
  first = [min(axis) for axis in zip(*places, strict=True)]
  chips: Chips = {}
  for place, device in sorted(
    zip(places, devices, strict=True), key=lambda pair: _core(pair[1])
  ):
    here = tuple(i - j for i, j in zip(place, first, strict=True))
    chips.setdefault(here, []).append(device)
  volume = math.prod(1 + max(axis) for axis in zip(*chips, strict=True))
  even = len({len(cores) for cores in chips.values()}) == 1
  distinct = len(set(map(device_key, devices))) == len(devices)
  return chips if volume == len(chips) and even and distinct else None


def slice_sides(devices: Sequence[jax.Device]) -> tuple[Coordinates, int]:
  """Chips along each dimension of a slice, and devices on a chip.

  Raises:
    ValueError: the devices have no coordinates, or do not fill a box.
  """
  chips = chips_of(devices)
  if chips is None:
    raise ValueError(f"{len(devices)} devices do not fill a box of chips")
  return sides_of(chips), len(devices) // len(chips)


def sides_of(chips: Chips) -> Coordinates:
  """Chips along each dimension of the box."""
  return tuple(1 + last for last in max(chips))


def hops(a: jax.Device, b: jax.Device) -> int:
  """Links between the chips of two devices, not using wrap-around links."""
  pairs = zip(_coordinates(a), _coordinates(b), strict=True)
  return sum(abs(i - j) for i, j in pairs)


def device_key(device: Any) -> tuple[Coordinates, int]:
  """The place of the device's chip, and its number on the chip."""
  return _coordinates(device), _core(device)


def _coordinates(device: Any) -> Coordinates:
  return tuple(device.coords)


def _core(device: Any) -> int:
  return getattr(device, "core_on_chip", 0)
