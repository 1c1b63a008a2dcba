import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from support.abstract_tpu import on
from support.tpu_interpreter import as_on_a_tpu

from podscale.kernels.packed.pack import tpu as pallas_tpu
from podscale.kernels.packed.packing import LANES, Packed, pack_like


def tree_of(shapes, dtype=np.float32):
  random = np.random.default_rng(0)
  return [random.normal(size=shape).astype(dtype) for shape in shapes]


SHAPES = st.lists(
  st.lists(st.integers(0, 40), max_size=3).map(tuple), min_size=1, max_size=6
)


@pytest.mark.slow
@settings(deadline=None)
@given(SHAPES, st.integers(1, 9))
def test_unpacking_undoes_packing(shapes, shards):
  tree = tree_of(shapes)
  packing = pack_like(tree, shards)
  buffer = packing.pack(tree)
  assert buffer.shape == (packing.rows, LANES)
  assert packing.rows % (16 * shards) == 0
  assert packing.rows < sum(packing.leaf_rows) + 16 * shards
  for leaf, again in zip(tree, packing.unpack(buffer), strict=True):
    assert (leaf == again).all()
  # Each leaf is in its own rows, and zeros are everywhere else.
  start = 0
  for leaf, rows in zip(tree, packing.leaf_rows, strict=True):
    mine = np.sort(np.ravel(buffer[start : start + rows]))
    zeros = np.zeros(mine.size - leaf.size)
    np.testing.assert_array_equal(
      mine, np.sort(np.concatenate([leaf.ravel(), zeros]))
    )
    start += rows
  assert not buffer[start:].any()


# Vectors, filters, matrices that are transposed or not, and a leaf that is too
# large to share a kernel.
KINDS = [(), (7,), (1024,), (1500,), (3, 3, 40), (5, 5, 3, 24), (0, 3)]
KINDS += [(300, 24), (24, 513), (8, 128), (80, 1024), (2, 16, 130)]
KINDS += [(1, 1, 4, 96)]


@pytest.mark.parametrize(
  ("most_bytes", "most_leaves"), [(4096, 32), (2**18, 3), (5 * 2**20, 32)]
)
def test_the_kernel_packs_the_same(
  most_bytes, most_leaves, interpret, monkeypatch
):
  monkeypatch.setattr(pallas_tpu, "_MOST_BYTES", most_bytes)
  monkeypatch.setattr(pallas_tpu, "_MOST_LEAVES", most_leaves)
  tree = tree_of(KINDS)
  packing = pack_like(tree, shards=3)
  buffer = packing.pack(tree)
  interpret()
  again = packing.pack(tree, implementation="pallas_tpu")
  np.testing.assert_array_equal(again, buffer)


def test_the_kernel_has_no_races_and_reads_no_uninitialized_memory():
  tree = tree_of(KINDS)
  packing = pack_like(tree)
  with as_on_a_tpu():
    buffer = packing.pack(tree, implementation="pallas_tpu")
  np.testing.assert_array_equal(buffer, packing.pack(tree))


def test_the_first_kernel_allocates_the_buffer():
  tree = tree_of(KINDS)
  packing = pack_like(tree)

  @jax.jit
  def pack(tree):
    return packing.pack(tree, implementation="pallas_tpu")

  with on("v5e"):
    hlo = pack.trace(tree).lower(lowering_platforms=("tpu",)).as_text()
  assert "tpu_custom_call" in hlo
  assert "AllocateBuffer" not in hlo


@pytest.mark.parametrize("implementation", ["xla", "pallas_tpu"])
def test_each_device_packs_its_own_leaves(implementation, interpret_tpu):
  interpret_tpu()
  tree = tree_of([(4, 9, 40), (4, 7)])
  packing = pack_like([x[0] for x in tree])
  mesh = Mesh(np.array(jax.devices()[:4]), ("x",))

  def local(tree):
    leaves = [x[0] for x in tree]
    return packing.pack(leaves, implementation=implementation)

  buffers = jax.shard_map(
    local, mesh=mesh, in_specs=P("x"), out_specs=P("x"), check_vma=True
  )(tree)
  for i, buffer in enumerate(np.split(buffers, 4)):
    expected = packing.pack([x[i] for x in tree])
    np.testing.assert_array_equal(buffer, expected)


def test_packs_in_float32_and_unpacks_in_the_dtype_of_the_buffer():
  tree = {"a": jnp.ones(3, jnp.bfloat16)}
  packing = pack_like(tree)
  buffer = packing.pack(tree)
  assert buffer.dtype == jnp.float32
  assert packing.unpack(buffer)["a"].dtype == jnp.float32
  assert packing.unpack(buffer.astype(jnp.bfloat16))["a"].dtype == jnp.bfloat16


def test_equal_trees_have_equal_packings():
  tree = tree_of([(3, 4), (5,)])
  shapes = jax.eval_shape(lambda: tree)
  assert pack_like(tree) == pack_like(shapes)
  assert hash(pack_like(tree)) == hash(pack_like(shapes))


def test_another_tree_is_refused():
  packing = pack_like(tree_of([(3, 4), (5,)]))
  with pytest.raises(
    ValueError, match=r"leaf 1 has shape \(6,\) instead of \(5,\)"
  ):
    packing.pack(tree_of([(3, 4), (6,)]))
  with pytest.raises(ValueError, match="has 1 leaves, .* a tree of 2"):
    packing.pack(tree_of([(3, 4)]))


def test_another_buffer_is_refused():
  packing = pack_like(tree_of([(3, 4)]))
  with pytest.raises(ValueError, match=r"\(16, 128\), got \(32, 128\)"):
    packing.unpack(jnp.zeros((32, 128)))


def test_only_trees_of_floating_arrays_can_be_packed():
  with pytest.raises(ValueError, match=r"\['a'\] is int32"):
    pack_like({"a": jnp.zeros(3, jnp.int32)})
  with pytest.raises(ValueError, match="no leaves"):
    pack_like({})


def test_a_packed_tree_is_a_pytree_of_its_buffer():
  packed = Packed.of({"a": jnp.arange(3.0)})
  doubled = jax.jit(lambda tree: jax.tree.map(lambda x: 2 * x, tree))(packed)
  assert doubled.packing == packed.packing
  assert doubled.unpack()["a"].tolist() == [0, 2, 4]


def test_the_leaf_of_each_register():
  packing = pack_like({"a": jnp.zeros(1), "b": jnp.zeros((9, 200))}, 2)
  assert packing.leaf_rows == (8, 32) and packing.rows == 64
  assert packing.leaf_of_register.tolist() == [0, 1, 1, 1, 1, 1, 1, 1]
  names = [jax.tree_util.keystr(path) for path in packing.paths]
  assert names == ["['a']", "['b']"]
