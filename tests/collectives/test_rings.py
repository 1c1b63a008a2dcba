import itertools

import jax
import pytest
from support.tpu_slices import SLICES, tpu_slice

from podscale.collectives.rings import torus_rings
from podscale.collectives.tiles import tile_order
from podscale.collectives.torus import hops


@pytest.mark.parametrize(("sides", "cores"), SLICES)
def test_rings_along_the_dimensions(sides, cores):
  devices = tile_order(tpu_slice(*sides, cores=cores), 4)
  dimensions = torus_rings(devices)
  lengths = [len(rings[0]) for rings in dimensions]
  assert sorted(lengths) == sorted(
    n for n in (sides[0] * cores, *sides[1:]) if n > 1
  )
  assert lengths == sorted(lengths, reverse=True)
  for rings in dimensions:
    assert sorted(sum(rings, ())) == list(range(len(devices)))
    for ring in rings:
      steps = {
        hops(devices[a], devices[b]) for a, b in itertools.pairwise(ring)
      }
      assert steps <= {0, 1}


@pytest.mark.parametrize(
  ("count", "lengths"), [(1, []), (2, [2]), (6, [3, 2]), (7, [7]), (8, [4, 2])]
)
def test_rings_of_a_grid_without_coordinates(count, lengths):
  dimensions = torus_rings(jax.devices()[:1] * count)
  assert [len(rings[0]) for rings in dimensions] == lengths
