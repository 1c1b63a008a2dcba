"""The ('group', 'member') mesh, and how many devices make a group."""

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
  """A mesh of all devices in groups of `group_size` neighbours.

  Batch normalisation reduces over `MEMBER`, gradients over `ALL_DEVICES`. The
  axes are of the Auto type, so a jitted function moves its arguments to where
  its `shard_map` wants them.

  On a TPU slice a group is the box of chips with the shortest sum of sides: 2x2
  chips for 8 cores of v3, then 2x4, 4x4 and 4x8, as in the MLPerf v0.7
  ResNet of Google. Its members follow each other in snake order, closed to a
  ring of single links where there is one. XLA's all-reduce over the whole mesh
  runs along the torus' dimensions whatever the order of the mesh is.

  Args:
    devices: of one slice, in any order; None is `jax.devices()`.
    group_size: devices in one batch-norm group.
    tile: "auto" makes groups compact where devices have coordinates that fill a
      box and `group_size` fits it, and takes them as they come elsewhere;
      "contiguous" always takes them as they come.

  Returns:
    A mesh of shape `(len(devices) // group_size, group_size)`.

  Raises:
    ValueError: `group_size` does not divide the number of devices, `tile` is
      neither of the two, or a process of this run has none of the devices: it
      would not join, and the others would wait for it for ever.

  Source: the tiles of the TensorFlow twin of MLPerf v0.7's ResNet,
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
  """The devices per group that normalise about `images_per_group` together.

  The rule of `DistributedBatchNormalization` in the reference code of
  arXiv:2011.00071 (tensorflow/tpu, models/official/efficientnet/utils.py):
  `max(1, int(images_per_group / (batch_size / device_count)))`. Unlike there,
  8 devices or fewer follow the same rule; it never exceeds `device_count`.

  Args:
    images_per_group: images that share one mean and variance.
    batch_size: images in one step, over all devices.
    device_count: devices that share the batch.

  Returns:
    Devices per group, a divisor of `device_count`.

  Raises:
    ValueError: an argument is below 1, or the rule's size does not divide
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
      f"the {len(devices)} devices are of all processes but "
      f"{', '.join(map(str, sorted(missing)))} of {len(processes)}, which "
      "would never join; give devices of all of them, such as jax.devices()"
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
