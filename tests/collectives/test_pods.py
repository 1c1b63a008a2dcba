"""Compiler and topologies of real TPUs, without hardware."""

import importlib.metadata
import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from support.libtpu_mark import NEEDS_LIBTPU

from podscale.bench.estimated.static import slice_devices
from podscale.collectives import (
  ALL_DEVICES,
  all_reduce,
  gather_shards,
  group_mesh,
  scatter_mean,
  torus_of,
)
from podscale.collectives.torus import hops
from podscale.train.errors import UsageError

pytestmark = NEEDS_LIBTPU


@pytest.mark.parametrize(
  ("topology", "cores"),
  [
    ("v3:16x32", 1024),
    ("v3:32x32", 2048),
    ("v4:8x8x8", 512),
    ("tpu7x:4x4x8", 256),
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


def compiled_for(topology, group_size, function, shape):
  """Compile a function of each device's own array to HLO."""
  devices = slice_devices(topology)
  mesh = group_mesh(devices, group_size)
  sharding = NamedSharding(mesh, P(ALL_DEVICES))
  array = jax.ShapeDtypeStruct(
    (len(devices) * shape[0], *shape[1:]), jnp.float32, sharding=sharding
  )
  step = jax.shard_map(
    function, mesh=mesh, in_specs=P(ALL_DEVICES), out_specs=P(ALL_DEVICES)
  )
  return jax.jit(step).lower(array).compile().as_text()


def exchanged(x):
  return all_reduce(x, implementation="pallas_tpu")


@pytest.mark.parametrize(
  ("topology", "group_size"),
  [
    ("v4:8x8x8", 4),
    ("v5e:16x16", 2),
    ("v5e:16x16", 64),
    ("v5p:8x8x8", 8),
    ("v6e:16x16", 4),
  ],
)
def test_the_kernel_compiles(topology, group_size):
  hlo = compiled_for(topology, group_size, exchanged, (2048,))
  assert hlo.count('custom_call_target="tpu_custom_call"') == 1
  assert " all-reduce(" not in hlo


@pytest.mark.parametrize("group_size", [2, 4, 64])
def test_the_kernel_compiles_for_v3_or_says_why_not(group_size):
  version = importlib.metadata.version("libtpu")
  if tuple(map(int, version.split(".")[:3])) >= (0, 0, 52):
    hlo = compiled_for("v3:16x32", group_size, exchanged, (2048,))
    assert hlo.count('custom_call_target="tpu_custom_call"') == 1
    return
  with pytest.raises(NotImplementedError, match="aborts on a remote DMA"):
    compiled_for("v3:16x32", group_size, exchanged, (2048,))


def test_shards_are_scattered_and_gathered_along_both_dimensions():
  devices = slice_devices("v3:16x32")
  torus = torus_of(group_mesh(devices, 4))
  hlo = compiled_for(
    "v3:16x32", 4, lambda x: scatter_mean(x, torus), (245760, 128)
  )
  assert re.findall(r"= (\S+?)\{\S* reduce-scatter\(", hlo) == [
    "f32[7680,128]",
    "f32[240,128]",
  ]
  assert " all-reduce(" not in hlo
  hlo = compiled_for(
    "v3:16x32", 4, lambda x: gather_shards(x, torus), (240, 128)
  )
  assert re.findall(r"= (\S+?)\{\S* all-gather\(", hlo) == [
    "f32[7680,128]",
    "f32[245760,128]",
  ]
