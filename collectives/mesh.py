"""The ('group', 'member') mesh and the number of devices in a group."""

from collections.abc import Sequence
from typing import Literal

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from .tiles import tile_order

GROUP = "group"
"""Mesh axis over the batch-norm groups."""
MEMBER = "member"
"""Mesh axis over the devices of one batch-norm group."""
ALL_DEVICES = (GROUP, MEMBER)
"""Both axes: every device, in mesh order."""


def group_mesh(
  devices: Sequence[jax.Device] | None = None,
  group_size: int = 1,
  tile: Literal["auto", "contiguous"] = "auto",
) -> Mesh:
  """Build a mesh of all devices in groups of `group_size` neighbours.

  Batch normalisation reduces over `MEMBER`, gradients over `ALL_DEVICES`. The
  axes have the Auto type, so a jitted function moves its arguments to the
  sharding that its `shard_map` needs.

  On a TPU slice a group is the box of chips with the shortest sum of sides: 2x2
  chips for 8 cores of v3, then 2x4, 4x4 and 4x8, as in Google's ResNet for
  MLPerf v0.7. The members of a group follow each other in snake order, which
  closes to a ring of single links if the box allows it. XLA's all-reduce over
  the whole mesh runs along the dimensions of the torus for any mesh order.

  Args:
    devices: Devices of one slice, in any order; None for `jax.devices()`.
    group_size: Number of devices in one batch-norm group.
    tile: "auto" forms compact groups if the device coordinates fill a box that
      `group_size` divides into boxes, and otherwise keeps the given order;
      "contiguous" always keeps the given order.

  Returns:
    Mesh of shape `(len(devices) // group_size, group_size)`.

  Raises:
    ValueError: `group_size` does not divide the number of devices, `tile` is
      unknown, or a process of this run owns none of the devices: it would not
      join, and the other processes would wait for it forever.

  Source: tiles of the TensorFlow version of MLPerf v0.7's ResNet,
  `util/image_util.py`; Ying et al. 2018, arXiv:1811.06992, for groups of
  neighbours.

  >>> group_mesh(jax.devices()[:1]).shape_tuple
  (('group', 1), ('member', 1))
  """
  devices = jax.devices() if devices is None else list(devices)
  _check_divides(group_size, len(devices), f"a group of {group_size}")
  _check_processes(devices)
  if tile not in ("auto", "contiguous"):
    raise ValueError(f'tile must be "auto" or "contiguous", got {tile!r}')
  tiled = tile_order(devices, group_size) if tile == "auto" else None
  return Mesh(
    np.array(tiled or devices).reshape(-1, group_size),
    ALL_DEVICES,
    axis_types=(AxisType.Auto, AxisType.Auto),
  )


def group_size_for(
  images_per_group: int, batch_size: int, device_count: int
) -> int:
  """Compute the group size that normalises about `images_per_group` together.

  The rule is `max(1, int(images_per_group / (batch_size / device_count)))`, at
  most `device_count`, as in `DistributedBatchNormalization` of the reference
  code of arXiv:2011.00071 (tensorflow/tpu,
  models/official/efficientnet/utils.py). The reference makes an exception for 8
  devices or fewer; this function does not.

  Args:
    images_per_group: Number of images that share one mean and variance.
    batch_size: Number of images in one step, over all devices.
    device_count: Number of devices that share the batch.

  Returns:
    Devices per group, a divisor of `device_count`.

  Raises:
    ValueError: An argument is below 1, or the computed size does not divide
      `device_count`.

  >>> group_size_for(128, batch_size=32768, device_count=1024)
  4
  >>> group_size_for(128, batch_size=65536, device_count=1024)
  2
  """
  if min(images_per_group, batch_size, device_count) < 1:
    raise ValueError(
      "images_per_group, batch_size and device_count must be at least 1, got "
      f"{images_per_group}, {batch_size} and {device_count}"
    )
  rule = max(1, images_per_group * device_count // batch_size)
  group_size = min(rule, device_count)
  _check_divides(
    group_size,
    device_count,
    f"{images_per_group} images per group at {batch_size / device_count:g} "
    f"images per device make a group of {group_size}, which",
  )
  return group_size


def _check_processes(devices: Sequence[jax.Device]) -> None:
  processes = set(range(jax.process_count()))
  missing = processes - {device.process_index for device in devices}
  if missing and len(processes) > 1:
    raise ValueError(
      f"process {', '.join(map(str, sorted(missing)))} of {len(processes)} "
      f"owns none of the {len(devices)} given devices and would never join; "
      "pass devices of all processes, such as jax.devices()"
    )


def _check_divides(group_size: int, device_count: int, subject: str) -> None:
  if group_size >= 1 and device_count % group_size == 0:
    return
  sizes = [d for d in range(1, device_count + 1) if device_count % d == 0]
  nearest = [
    *[d for d in sizes if d < group_size][-1:],
    *[d for d in sizes if d > group_size][:1],
  ]
  raise ValueError(
    f"{subject} does not divide {device_count} devices; nearest that do: "
    + " and ".join(map(str, nearest))
  )
