import jax
import pytest
from support.tpu_slices import tpu_slice

from podscale.collectives.torus import hops, slice_sides


def test_sides_of_a_slice():
  assert slice_sides(tpu_slice(4, 8, 1, cores=2)) == ((4, 8, 1), 2)


def test_devices_without_coordinates_have_no_sides():
  with pytest.raises(ValueError, match="8 devices do not fill a box"):
    slice_sides(jax.devices())


def test_hops_between_chips():
  devices = tpu_slice(4, 8, 1, cores=2)
  by_place = {(d.coords, d.core_on_chip): d for d in devices}
  corner, core = by_place[(0, 0, 0), 0], by_place[(0, 0, 0), 1]
  assert hops(corner, core) == 0
  assert hops(core, by_place[(3, 7, 0), 0]) == 10
