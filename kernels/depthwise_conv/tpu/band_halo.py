"""Halo of a band: rows of the bands above and below it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import jax

from ...common.bands import halo_masks, halo_rows
from ...tpu.pallas_call import Operand
from ...tpu.registers import Registers
from .channel_vectors import ChannelInputs
from .geometry import Geometry
from .row_fills import Source

Side = Literal["above", "below"]
SIDES: tuple[Side, Side] = ("above", "below")


def band_halo_operands(
  arrays: Mapping[str, jax.Array],
  block: tuple[int, ...],
  reach: tuple[int, int],
  g: Geometry,
) -> dict[str, Operand]:
  """Make the operands `NAME_above` and `NAME_below` of each banded array.

  Args:
    arrays: Arrays by name.
    block: Shape of a step's block of the arrays.
    reach: Rows above and below a block that the taps read.
    g: Geometry of the call.

  Returns:
    The operands by name; none if the image has one band.
  """
  if g.bands == 1:
    return {}
  return {
    f"{name}_{side}": (rows, g.band_halo_block(block, len(rows)))
    for name, array in arrays.items()
    for side, rows in halo_rows(array, g.bands, *reach).items()
  }


def band_halo_masks(
  reach: tuple[int, int], g: Geometry
) -> dict[str, jax.Array]:
  """Make the channel vectors `above` and `below`: 1 if a band has a neighbour.

  Sides without rows have no vector.
  """
  if g.bands == 1:
    return {}
  masks = halo_masks(g.channels, g.bands)
  sides = zip(SIDES, reach, strict=True)
  return {side: masks[side] for side, rows in sides if rows}


def band_halo_sources(
  inputs: ChannelInputs,
  refs,
  names: Sequence[str],
  group,
  function: Callable[..., Registers],
) -> dict[Side, Source]:
  """Make the source of each side's rows, for the bands of a channel group.

  Args:
    inputs: Channel inputs of the kernel.
    refs: Refs of the kernel.
    names: Arrays that `function` takes.
    group: Channel group.
    function: Function of a list of registers per array. Its result becomes zero
      for bands without a neighbour.
  """

  def source(side: Side) -> Source:
    mask = inputs.vector(refs, side, group)
    return Source(
      [getattr(refs, f"{name}_{side}") for name in names],
      lambda *registers: [mask * value for value in function(*registers)],
    )

  return {side: source(side) for side in SIDES if side in inputs.names}
