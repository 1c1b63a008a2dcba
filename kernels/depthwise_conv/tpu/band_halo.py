"""What lies beyond the edges of a band: rows of the bands next to it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax

from ...common.bands import halo_masks, halo_rows
from ...tpu.pallas_call import Operand
from ...tpu.registers import Registers
from .channel_vectors import Given
from .geometry import Geometry

Function = Callable[..., Registers]
SIDES = ("above", "below")


class Edge(NamedTuple):
  """The rows of one side, for a buffer.

  Attributes:
    sources: Ref of each array's rows.
    function: Of a list of registers per array; zeros where there is no band.
  """

  sources: list
  function: Function


def edge_rows(
  arrays: Mapping[str, jax.Array],
  block: tuple[int, ...],
  reach: tuple[int, int],
  g: Geometry,
) -> dict[str, Operand]:
  """Operands `NAME_above` and `NAME_below` of each array that is in bands.

  Args:
    arrays: By name.
    block: Shape of a step's block of them.
    reach: How many rows above and below are read.
    g: The call.
  """
  if g.bands == 1:
    return {}
  return {
    f"{name}_{side}": (rows, g.edge_block(block, len(rows)))
    for name, array in arrays.items()
    for side, rows in halo_rows(array, g.bands, *reach).items()
  }


def edge_vectors(reach: tuple[int, int], g: Geometry) -> dict[str, jax.Array]:
  """The vectors `above` and `below`: ones where there is a band to read."""
  if g.bands == 1:
    return {}
  masks = halo_masks(g.channels, g.bands)
  sides = zip(SIDES, reach, strict=True)
  return {side: masks[side] for side, rows in sides if rows}


def edges_of(
  given: Given, refs, names: list[str], group, function: Function
) -> dict[str, Edge]:
  """The edges of a group of channels, by side, where there are any."""

  def edge(side: str) -> Edge:
    mask = given.vector(refs, side, group)
    return Edge(
      [getattr(refs, f"{name}_{side}") for name in names],
      lambda *registers: [mask * value for value in function(*registers)],
    )

  return {side: edge(side) for side in SIDES if side in given.names}
