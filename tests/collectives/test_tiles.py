import itertools

import jax
import pytest
from support.tpu_slices import SLICES, Chip, tpu_slice

from podscale.collectives.tiles import tile_order, tile_shape
from podscale.collectives.torus import hops


def powers_of_two(largest):
  return itertools.takewhile(
    lambda n: n <= largest, (2**i for i in itertools.count())
  )


def groups(order, size):
  return [order[i : i + size] for i in range(0, len(order), size)]


def diameter(group):
  return max(hops(a, b) for a in group[::2] for b in group)


@pytest.mark.parametrize(("sides", "cores"), SLICES)
def test_groups_are_boxes_of_neighbours(sides, cores):
  devices = tpu_slice(*sides, cores=cores)
  for size in powers_of_two(len(devices)):
    order = tile_order(devices, size)
    assert sorted(order) == sorted(devices)
    box = tile_shape(sides, cores, size)
    for group in groups(order, size):
      corner = tuple(map(min, zip(*(d.coords for d in group), strict=True)))
      assert {d.coords for d in group} == {
        tuple(a + b for a, b in zip(corner, place, strict=True))
        for place in itertools.product(*map(range, box))
      }
      # The ring of members uses single links only, the way back included.
      assert {hops(group[i - 1], group[i]) for i in range(size)} <= {0, 1}


@pytest.mark.parametrize(
  ("cores", "box"),
  # Tiles of MLPerf v0.7's ResNet on v3, in chips.
  [(8, (2, 2)), (16, (2, 4)), (32, (4, 4)), (64, (4, 8))],
)
def test_boxes_of_the_reference(cores, box):
  assert tile_shape((16, 32), cores=2, group_size=cores) == box


@pytest.mark.parametrize(
  ("sides", "size", "largest", "contiguous"),
  [
    ((16, 32, 1), 32, 6, 8),
    ((16, 32, 1), 64, 10, 16),
    ((32, 32, 1), 128, 14, 32),
    ((8, 8, 8), 32, 5, 8),
  ],
)
def test_no_group_is_wider_than_a_contiguous_one(
  sides, size, largest, contiguous
):
  devices = tpu_slice(*sides, cores=2)
  tiled = groups(tile_order(devices, size), size)
  assert max(map(diameter, tiled)) == largest
  assert max(map(diameter, groups(devices, size))) == contiguous


def test_any_order_of_devices_gives_the_same_groups():
  devices = tpu_slice(4, 4, 1, cores=2)
  assert tile_order(devices[::-1], 8) == tile_order(devices, 8)


def test_a_slice_within_a_larger_one_need_not_start_at_the_origin():
  devices = tpu_slice(4, 4, 1, cores=1)
  moved = [Chip((d.coords[0] + 8, *d.coords[1:]), 0) for d in devices]
  order = tile_order(moved, 4)
  assert [(c[0] - 8, *c[1:]) for c, _ in order] == [
    c for c, _ in tile_order(devices, 4)
  ]


@pytest.mark.parametrize(
  "devices",
  [
    tpu_slice(2, 2, 1, cores=2)[:-2],  # a chip is missing
    tpu_slice(2, 2, 1, cores=2)[:-1],  # a core is missing
    tpu_slice(2, 2, 1, cores=1) * 2,  # two slices
  ],
)
def test_no_tiles_where_the_chips_do_not_fill_a_box(devices):
  assert tile_order(devices, 1) is None


def test_no_tiles_without_coordinates():
  assert tile_order(jax.devices(), 2) is None


def test_no_tiles_of_a_size_that_no_box_has():
  # 6 of 16 cores are 3 chips of 2x4; 5 do not even fill chips.
  devices = tpu_slice(2, 4, 1, cores=2)
  assert tile_order(devices, 6) is None
  assert tile_order(devices, 5) is None
