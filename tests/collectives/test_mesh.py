import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from podscale.collectives import (
  ALL_DEVICES,
  GROUP,
  MEMBER,
  group_mesh,
  group_size_for,
)


@pytest.mark.parametrize("group_size", [1, 2, 4, 8])
def test_groups_are_neighbours(group_size):
  mesh = group_mesh(group_size=group_size)
  assert mesh.axis_names == ALL_DEVICES == (GROUP, MEMBER)
  assert mesh.devices.tolist() == [
    jax.devices()[i : i + group_size] for i in range(0, 8, group_size)
  ]


def test_given_devices_keep_their_order_without_coordinates():
  devices = jax.devices()[5:1:-1]
  mesh = group_mesh(devices, group_size=2)
  assert mesh.devices.ravel().tolist() == devices


def test_jit_moves_arguments_to_the_mesh():
  mesh = group_mesh(group_size=2)
  x = np.arange(8, dtype=np.float32)
  step = jax.shard_map(
    lambda x: jax.lax.psum(x, MEMBER),
    mesh=mesh,
    in_specs=P(ALL_DEVICES),
    out_specs=P(GROUP),
  )
  assert jax.jit(step)(x).tolist() == [1, 5, 9, 13]


@pytest.mark.parametrize(
  ("group_size", "nearest"),
  [(3, "2 and 4"), (5, "4 and 8"), (16, "8"), (0, "1"), (-2, "1")],
)
def test_group_must_divide_the_devices(group_size, nearest):
  with pytest.raises(
    ValueError,
    match=rf"group of {group_size} does not divide 8 devices; .*: {nearest}$",
  ):
    group_mesh(group_size=group_size)


@pytest.mark.parametrize(
  ("batch_size", "device_count", "group_size"),
  [
    # Runs of arXiv:2011.00071, at 128 images per group.
    (4096, 128, 4),
    (8192, 256, 4),
    (16384, 512, 4),
    (32768, 1024, 4),
    (65536, 1024, 2),
    # More images on a device than a group asks for.
    (2048, 8, 1),
    # Fewer images in the batch than a group asks for.
    (64, 8, 8),
    (8, 8, 8),
    # Truncated towards a smaller group: 128 / 48 is 2.67.
    (384, 8, 2),
  ],
)
def test_group_size_for_128_images(batch_size, device_count, group_size):
  assert group_size_for(128, batch_size, device_count) == group_size


def test_group_size_that_does_not_divide_is_refused():
  with pytest.raises(ValueError) as error:
    group_size_for(96, batch_size=256, device_count=8)
  assert str(error.value) == (
    "96 images per group at 32 images per device make a group of 3, which "
    "does not divide 8 devices; nearest that do: 2 and 4"
  )


@pytest.mark.parametrize("sizes", [(0, 64, 8), (128, 0, 8), (128, 64, 0)])
def test_sizes_below_one_are_refused(sizes):
  with pytest.raises(ValueError, match="at least 1, got "):
    group_size_for(*sizes)


def test_unknown_tile_is_refused():
  with pytest.raises(ValueError, match='"auto" or "contiguous", got "?\'snake'):
    group_mesh(group_size=2, tile="snake")


def test_a_process_left_out_is_refused(monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: 3)
  with pytest.raises(ValueError, match="process 1, 2 of 3 owns none"):
    group_mesh(group_size=2)
