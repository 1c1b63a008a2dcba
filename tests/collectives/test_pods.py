"""Meshes of real topologies, from the TPU's compiler without a TPU."""

import importlib.util

import pytest

from podscale.bench.static import slice_devices
from podscale.collectives import group_mesh
from podscale.collectives.torus import hops
from podscale.train.errors import UsageError

pytestmark = [
  pytest.mark.libtpu,
  pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu, the TPU's compiler, is not installed",
  ),
]


@pytest.mark.parametrize(
  ("topology", "cores"),
  [
    ("v3:16x32", 1024),
    ("v3:32x32", 2048),
    ("v4:8x8x8", 1024),
    ("v5e:16x16", 256),
    ("v5p:8x8x8", 512),
    ("v6e:16x16", 256),
  ],
)
def test_groups_are_rings_of_neighbours(topology, cores):
  devices = slice_devices(topology)
  assert len(devices) == cores
  for size in (2**i for i in range(cores.bit_length())):
    mesh = group_mesh(devices, size).devices
    assert mesh.shape == (cores // size, size)
    assert set(mesh.flat) == set(devices)
    for group in mesh:
      assert max(map(hops, group, [*group[1:], group[0]])) <= 1


def test_an_unknown_topology_is_one_line():
  with pytest.raises(UsageError, match=r"does not compile for v3:3x999: .*"):
    slice_devices("v3:3x999")
