"""Collectives and groups on a TPU's torus: counts and estimated times.

The times come from `collective_cost`, a model of latency and bandwidth.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ...collectives import group_mesh
from ...collectives.tiles import tile_shape
from ...collectives.torus import hops, slice_sides
from ..chips import CHIPS
from ..tables.paper_table import PAPER_TABLE, SLICES
from ..workloads.collectives import model_sizes, step_parts
from .collective_cost import Slice, all_reduce_us, exchange_us, ring_us

_MESSAGE = 8192  # bytes; the moments of 1,024 channels

_BYTES_PER_CHANNEL = 8  # two moments in float32
_GROUP = 128  # images in a batch-norm group
_PER_CORE = 32  # images a core, in the paper's table


def count_collectives(
  model: str, devices: Sequence[jax.Device], *, group_size: int
) -> list[dict[str, Any]]:
  """Compile each part of a step's communication and count its collectives.

  Args:
    model: Member of the family.
    devices: All devices of a slice, which need not exist.
    group_size: Devices in a batch-norm group.

  Returns:
    A row for each part.
  """
  mesh = group_mesh(devices, group_size)
  return [part.counted() for part in step_parts(model_sizes(model), mesh)]


def hop_rows(chip: str, devices: list[jax.Device]) -> list[dict[str, Any]]:
  """Compute distances within groups, for each power of two as group size.

  Args:
    chip: Generation of the devices.
    devices: All devices of a slice.

  Returns:
    A row for each group size: the tile in chips; the largest number of links
    between two members of any group, and between neighbours in the ring of
    members, for contiguous and for tiled groups; and the microseconds of two
    all-reduces of 8 kB on the tile, by `exchange_us` and by `ring_us`.
  """
  sides, cores = slice_sides(devices)
  rows = []
  for size in _powers_of_two(len(devices)):
    box = _tile(chip, sides, cores, size)
    tile = "x".join(map(str, box.sides))
    row: dict[str, Any] = {"group": size, "tile": tile}
    for order in ("contiguous", "auto"):
      groups = group_mesh(devices, size, tile=order).devices
      row[f"hops, {order}"] = max(map(_widest, groups))
      row[f"ring, {order}"] = max(map(_ring_step, groups))
    row["exchange us"] = exchange_us(_MESSAGE, box)
    row["ring us"] = ring_us(_MESSAGE, box)
    rows.append(row)
  return rows


def moment_rows(
  chip: str, devices: Sequence[jax.Device]
) -> list[dict[str, Any]]:
  """Estimate the collectives of a step's batch norms, in groups of 128 images.

  Each batch norm sums two moments over its group, and then their gradients.

  Args:
    chip: Generation of the devices.
    devices: All devices of a slice.

  Returns:
    A row for B0, B2 and B5 with 32 and 64 images on a device: the devices in a
    `group` and its `tile` in chips; and microseconds a step with XLA's
    all-reduce, `ring us`, and with `collectives.exchange`, `exchange us`.
    Groups that do not divide the slice are left out.
  """
  rows: list[dict[str, Any]] = []
  for model, images in itertools.product(("b0", "b2", "b5"), (32, 64)):
    group = _GROUP // images
    if len(devices) % group:
      continue
    tile = _tile(chip, *slice_sides(devices), group)
    messages = [_BYTES_PER_CHANNEL * c for c in model_sizes(model).channels]
    rows.append(
      {
        "model": model,
        "images on a device": images,
        "group": tile.devices,
        "tile": "x".join(map(str, tile.sides)),
        "ring us": 2 * sum(ring_us(x, tile) for x in messages),
        "exchange us": 2 * sum(exchange_us(x, tile) for x in messages),
      }
    )
  return rows


def paper_table_rows() -> list[dict[str, Any]]:
  """Predict the share of a step in all-reduce, beside the published share.

  Takes the published time of the step, groups of 128 images and a slice of v3.

  Returns:
    A row for each row of the paper's Table 1.
  """
  return [
    _paper_table_row(model, cores, *published)
    for (model, cores), published in PAPER_TABLE.items()
  ]


def _paper_table_row(model, cores, images_per_ms, published):
  sizes, batch = model_sizes(model), _PER_CORE * cores
  slice_ = Slice(CHIPS["v3"], SLICES["v3"][cores], 2)
  tile = _tile("v3", slice_.sides, 2, _GROUP // _PER_CORE)
  moments = 2 * sum(
    ring_us(_BYTES_PER_CHANNEL * c, tile) for c in sizes.channels
  )
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


def _tile(
  chip: str, sides: Sequence[int], cores: int, group_size: int
) -> Slice:
  """Return the box of a group on a slice that it divides."""
  tile = tile_shape(sides, cores, group_size)
  assert tile is not None
  return Slice(CHIPS[chip], tile, min(group_size, cores))


def _powers_of_two(largest: int) -> list[int]:
  return [2**i for i in range(largest.bit_length())]


def _widest(group) -> int:
  """Count the links between the farthest two members of a group.

  The largest sum of |distances| over the dimensions is the largest sum of
  distances over all choices of signs.
  """
  coordinates = np.array([device.coords for device in group])
  signs = itertools.product((1, -1), repeat=coordinates.shape[1])
  return max(int(np.ptp(coordinates @ np.array(sign))) for sign in signs)


def _ring_step(group) -> int:
  """Count the links between the farthest neighbours in a group's ring."""
  return max(hops(group[i - 1], group[i]) for i in range(len(group)))
