"""Coordinates of the devices of a slice."""

import math
from collections.abc import Sequence
from typing import Any

import jax

Coordinates = tuple[int, ...]
"""Coordinates of a chip along each dimension of the torus."""
Chips = dict[Coordinates, list[jax.Device]]
"""Devices of each chip of a slice, by the coordinates in its box of chips."""


def chips_of(
  devices: Sequence[jax.Device],
) -> Chips | None:
  """Group devices by the coordinates of their chip; None if no box is full."""
  if not all(getattr(device, "coords", None) for device in devices):
    return None
  coordinates = [_coordinates(device) for device in devices]
  origin = [min(axis) for axis in zip(*coordinates, strict=True)]
  chips: Chips = {}
  for position, device in sorted(
    zip(coordinates, devices, strict=True), key=lambda pair: _core(pair[1])
  ):
    chip = tuple(i - j for i, j in zip(position, origin, strict=True))
    chips.setdefault(chip, []).append(device)
  volume = math.prod(1 + max(axis) for axis in zip(*chips, strict=True))
  even = len({len(cores) for cores in chips.values()}) == 1
  distinct = len(set(map(device_key, devices))) == len(devices)
  return chips if volume == len(chips) and even and distinct else None


def slice_sides(devices: Sequence[jax.Device]) -> tuple[Coordinates, int]:
  """Return the number of chips along each dimension, and of devices per chip.

  Raises:
    ValueError: The devices have no coordinates, or do not fill a box.
  """
  chips = chips_of(devices)
  if chips is None:
    raise ValueError(
      f"the {len(devices)} devices do not fill a box of chips; pass all "
      "devices of one slice"
    )
  return sides_of(chips), len(devices) // len(chips)


def sides_of(chips: Chips) -> Coordinates:
  """Return the number of chips along each dimension of the box."""
  return tuple(1 + last for last in max(chips))


def hops(a: jax.Device, b: jax.Device) -> int:
  """Count the links between two devices' chips, without wrap-around links."""
  pairs = zip(_coordinates(a), _coordinates(b), strict=True)
  return sum(abs(i - j) for i, j in pairs)


def device_key(device: Any) -> tuple[Coordinates, int]:
  """Return the coordinates of the device's chip and its core number."""
  return _coordinates(device), _core(device)


def _coordinates(device: Any) -> Coordinates:
  return tuple(device.coords)


def _core(device: Any) -> int:
  return getattr(device, "core_on_chip", 0)
