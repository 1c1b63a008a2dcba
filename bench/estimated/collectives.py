"""Groups on the torus, and what collectives take there: ESTIMATES.

The times are those of `collectives.cost`, a model of latency and bandwidth.
"""

import itertools
from typing import Any

import jax
import numpy as np

from ...collectives import group_mesh
from ...collectives.tiles import tile_shape
from ...collectives.torus import hops, slice_sides
from ..measured.collectives import model_sizes
from ..tables.paper_table import SLICES, TABLE_1
from .collective_cost import Slice, all_reduce_us, exchange_us, ring_us

_MESSAGE = 8192  # bytes; the moments of 1,024 channels

_GROUP = 128  # images that batch norm takes together
_PER_CORE = 32  # of the paper's table


def hop_rows(chip: str, devices: list[jax.Device]) -> list[dict[str, Any]]:
  """For each power of two how far apart the members of a group are.

  Args:
    chip: Its generation.
    devices: Of a whole slice.

  Returns:
    A row for each group size: the tile in chips; the largest number of links
    between two members of any group, and between neighbours in the ring of
    members, contiguous and tiled; and what the two kinds of all-reduce take
    for 8 kB on the tile, in microseconds.
  """
  sides, cores = slice_sides(devices)
  rows = []
  for size in _powers_of_two(len(devices)):
    tile = tile_shape(sides, cores, size)
    assert tile is not None
    box = Slice(chip, tile, min(size, cores))
    row: dict[str, Any] = {"group": size, "tile": "x".join(map(str, tile))}
    for order in ("contiguous", "auto"):
      groups = group_mesh(devices, size, tile=order).devices
      row[f"hops, {order}"] = max(map(_widest, groups))
      row[f"ring, {order}"] = max(map(_ring_step, groups))
    row["exchange us"] = exchange_us(_MESSAGE, box)
    row["ring us"] = ring_us(_MESSAGE, box)
    rows.append(row)
  return rows


def table_1_rows() -> list[dict[str, Any]]:
  """The share of a step in all-reduce, predicted and as published.

  The step's time is the published one, the groups those of 128 images, on a
  slice of v3.
  """
  return [
    _table_1_row(model, cores, *published)
    for (model, cores), published in TABLE_1.items()
  ]


def _table_1_row(model, cores, images_per_ms, published):
  sizes, batch = model_sizes(model), _PER_CORE * cores
  slice_ = Slice("v3", SLICES["v3"][cores], 2)
  group = _GROUP // _PER_CORE
  sides = tile_shape(slice_.sides, 2, group)
  assert sides is not None
  tile = Slice("v3", sides, 2)
  moments = sum(2 * ring_us(8 * c, tile) for c in sizes.channels)
  gradients = all_reduce_us(sizes.gradient_bytes, slice_)
  step = 1e3 * batch / images_per_ms
  return {
    "model": model,
    "cores": cores,
    "batch": batch,
    "step ms": step / 1e3,
    "moments us": moments,
    "gradients us": gradients,
    "all-reduce %": 100 * (moments + gradients) / step,
    "published %": published,
  }


def _powers_of_two(largest: int) -> list[int]:
  return [2**i for i in range(largest.bit_length())]


def _widest(group) -> int:
  """Links between the farthest two of a group.

  The largest sum of |distances| along the dimensions is the largest sum of the
  distances themselves, taken with one sign or the other.
  """
  places = np.array([device.coords for device in group])
  signs = itertools.product((1, -1), repeat=places.shape[1])
  return max(int(np.ptp(places @ np.array(sign))) for sign in signs)


def _ring_step(group) -> int:
  return max(hops(group[i - 1], group[i]) for i in range(len(group)))
