"""How both kernels go over a grid step: its parts, groups and columns."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from ...tpu.columns import UNROLLED, column_chunks
from ...tpu.registers import LANES, SUBLANES, TILE, batch_masks, sublane_images
from .geometry import Geometry, stage_of

Masks = list[jax.Array] | None


class Part(NamedTuple):
  """The sublanes of a step that are loaded together.

  Attributes:
    sublanes: Slice of them.
    first: The first of them, counted over all steps.
    groups: The group of channels that each of their registers holds.
    masks: Which of each register's values are of an image; None if all are.
  """

  sublanes: pl.Slice
  first: jax.Array
  groups: list
  masks: Masks


def for_each_part(g: Geometry, refs, body) -> None:
  """Calls `body(q, part)` for each part of a step that has something in it."""
  c, n = pl.program_id(0), pl.program_id(1)
  step = n if g.channels_in_lanes else c
  size, packed = g.blocks.sublanes, g.blocks.packed
  there = jnp.minimum(size, g.sublane_size - step * size)

  @pl.loop(0, pl.cdiv(there, packed))
  def _(q):
    first = step * size + q * packed
    rows = pl.ds(pl.multiple_of(q * packed, packed), packed)
    if g.channels_in_lanes:
      groups = [0] * g.registers
      masks = batch_masks(first, g.batch, packed, stage_of(refs))
    else:
      groups = [q * g.registers + p for p in range(g.registers)]
      masks = _lane_masks(g, n)
    body(q, Part(rows, first, groups, masks))


def _lane_masks(g: Geometry, n) -> Masks:
  if g.batch % LANES == 0:
    return None
  lane = lax.broadcasted_iota(jnp.int32, TILE, 1)
  return [lane + n * LANES < g.batch] * g.registers


def images_of(g: Geometry, stage) -> jax.Array:
  """How many images each value of a register of sums has seen."""
  if g.channels_in_lanes:
    image, period = sublane_images(stage), SUBLANES
  else:
    image, period = lax.broadcasted_iota(jnp.int32, TILE, 1), LANES
  # Those n with n % period == image; `//` would ask which chip this is.
  return lax.div(g.batch - image + period - 1, period)


def total(g: Geometry, sums: jax.Array) -> jax.Array:
  """Adds up what a register holds of each channel."""
  return jnp.sum(sums, 0 if g.channels_in_lanes else 1, keepdims=True)


def per_register[T](groups: list, values: list[T]) -> list[T]:
  """Values of a part's distinct groups, one for each of its registers."""
  return values if len(values) == len(groups) else values * len(groups)


def distinct(g: Geometry, groups: list) -> list:
  """Those groups of a part that differ."""
  return groups[:1] if g.channels_in_lanes else groups


def for_each_group(g: Geometry, body) -> None:
  """`body(group)` for each group of channels of a step."""
  if g.groups == 1:
    body(0)
  else:
    pl.loop(0, g.groups)(body)


def for_each_chunk(g: Geometry, width: int, chunk, carry):
  """`chunk(first, size, carry)` over a row's columns, by whole tiles."""
  if g.algorithm is None:
    return column_chunks(width, g.blocks.columns, chunk, carry)
  tile = g.algorithm.outputs

  def tiles(first, size, carry):
    columns = size * tile
    if isinstance(first, int):
      columns = min(columns, width - first * tile)
    return chunk(first * tile, columns, carry)

  long = width > UNROLLED
  return column_chunks(
    pl.cdiv(width, tile),
    max(g.blocks.columns // tile, 1),
    tiles,
    carry,
    looped=width // tile if long else 0,
  )
