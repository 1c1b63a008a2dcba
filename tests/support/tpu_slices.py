"""TPU slices without hardware: only what determines the order of devices."""

from itertools import product
from typing import NamedTuple

# (sides, cores per chip): v3 of 1,024 and 2,048 cores, v4 with and without
# megacore, v5e and v6e, v5p.
SLICES = [
  ((16, 32, 1), 2),
  ((32, 32, 1), 2),
  ((8, 8, 8), 2),
  ((8, 8, 16), 1),
  ((16, 16, 1), 1),
  ((4, 8, 1), 1),
]


class Chip(NamedTuple):
  """Device with the coordinates of a TPU core."""

  coords: tuple[int, ...]
  core_on_chip: int


def tpu_slice(*sides: int, cores: int) -> list[Chip]:
  """List the devices of a slice, host after host of 2x2 chips, as JAX does."""
  chips = product(*(range(side) for side in sides))
  by_host = sorted(chips, key=lambda c: (c[2:], c[1] // 2, c[0] // 2, c[1]))
  return [Chip(chip, core) for chip in by_host for core in range(cores)]
