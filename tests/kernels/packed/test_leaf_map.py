import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from podscale.kernels.packed.leaf_map import decode, make_leaf_map
from podscale.kernels.packed.packing import Packed, Shard, pack_like

# Leaves of 1, 3, 1, 2 and 1 registers, and of none.
SHAPES = [(5,), (3000,), (7, 9), (1500,), (0, 4), (2,)]


def leaf_maps(devices, mapped):
  """Make the leaf map of each shard, and the packing."""
  packing = pack_like([jnp.zeros(shape) for shape in SHAPES], devices)
  mesh = Mesh(np.array(jax.devices()[:devices]), ("x",))
  seen = []

  def local(buffer):
    shard = Shard(jax.lax.axis_index("x"), ("x",))
    leaf_map = make_leaf_map(Packed(buffer, packing), shard, mapped)
    seen.append(leaf_map)
    return leaf_map.leaf_of_register

  sharded = jax.shard_map(local, mesh=mesh, in_specs=P("x"), out_specs=P("x"))
  leaves = jax.jit(sharded)(jnp.zeros((packing.rows, 128)))
  return seen[0], np.asarray(leaves), packing


@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("left_out", [(), (0,), (1, 3), (1, 5), range(6)])
def test_every_register_knows_its_leaf(left_out, devices):
  mapped = [leaf not in left_out for leaf in range(len(SHAPES))]
  leaf_map, leaves, packing = leaf_maps(devices, mapped)
  # Mapped leaves are numbered in order; the others get one more number.
  numbers, count = [], 0
  for is_mapped in mapped:
    numbers.append(count if is_mapped else sum(mapped))
    count += is_mapped
  of_register = packing.leaf_of_register
  assert leaf_map.leaves == sum(mapped)
  assert leaves.tolist() == [numbers[leaf] for leaf in of_register]

  slots, continues = decode(leaf_map.codes)
  before = None
  for i, leaf in enumerate(of_register):
    shard, register = divmod(i, len(of_register) // devices)
    same = register > 0 and leaf == before
    assert continues[shard, register] == same
    slot = numbers[leaf] - leaf_map.firsts[shard]
    assert slots[shard, register] == (slot if mapped[leaf] else leaf_map.slots)
    before = leaf
  # No slot is spare in the shard with most leaves.
  in_shards = leaves.reshape(devices, -1)
  spans = [
    max(own) - min(own) + 1
    for own in ([x for x in row if x < sum(mapped)] for row in in_shards)
    if own
  ]
  assert leaf_map.slots == max(spans, default=0)


def test_a_buffer_that_is_not_whole_is_refused():
  packed = Packed.of([jnp.zeros(3000)])
  half = Packed(packed.buffer[:16], packed.packing)
  message = "has 32 rows, the buffer 16 on each of 1 devices; pass shard="
  with pytest.raises(ValueError, match=message):
    make_leaf_map(half, None)
