import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from support.tpu_interpreter import as_on_a_tpu

from podscale.kernels.leaf_norms import leaf_norms
from podscale.kernels.packed import register_blocks
from podscale.kernels.packed.norms.scaled_norm import norm
from podscale.kernels.packed.packing import Packed, Shard, pack_like

U = 2.0**-24  # largest relative error of a rounding to float32
SIZES = [1e-37, 1e-25, 1e-3, 1.0, 1e19, 1e25, 1e35]


def bounds(x):
  """Compute the norm in float64, without and with subnormal values."""
  x = np.float64(x).ravel()
  kept = np.where(np.abs(x) < 2.0**-126, 0, x)
  return np.linalg.norm(kept), np.linalg.norm(x)


@pytest.mark.parametrize("size", SIZES)
def test_norm_is_right_at_any_size(size):
  x = size * np.random.default_rng(1).standard_normal((37, 41))
  x = x.astype(np.float32)
  least, most = bounds(x)
  result = float(jax.jit(norm)(x))
  # A pairwise sum of 1,517 squares has about log2(1517) + 4 roundings; the
  # square root halves the error.
  assert least * (1 - 8 * U) <= result <= most * (1 + 8 * U)


@pytest.mark.parametrize("x", [np.zeros((3, 2)), np.zeros((0, 4))])
def test_norm_of_nothing_is_zero(x):
  assert float(norm(jnp.asarray(x, jnp.float32))) == 0


@given(st.floats(-1, 1, width=32), st.integers(-120, 120))
@example(small=0.25, exponent=-120)  # subnormal
@settings(deadline=None, max_examples=30)
def test_norm_of_a_number_beside_a_larger_one(small, exponent):
  x = np.array([2.0**exponent, small * 2.0 ** (exponent - 5)], np.float32)
  least, most = bounds(x)
  assert least * (1 - 8 * U) <= norm(jnp.asarray(x)) <= most * (1 + 8 * U)


def tree():
  """Make leaves of one register and of many, with values of all sizes."""
  rng = np.random.default_rng(0)
  shapes = [(3, 3, 40), (), (300, 24), (700,), (24, 513), (5, 7), (0, 3)]
  shapes += [(40, 300)] * len(SIZES)
  leaves = [rng.standard_normal(s).astype(np.float32) for s in shapes]
  leaves[5] *= 0
  for leaf, size in zip(leaves[7:], SIZES, strict=True):
    leaf *= size
  return leaves


def check(leaves, norms):
  least, most = np.array([bounds(x) for x in leaves]).T
  # Each leaf has up to 128 registers, added one after the other, and then its
  # lanes; the square root halves the error.
  assert (norms >= least * (1 - 80 * U)).all()
  assert (norms <= most * (1 + 80 * U)).all()


IMPLEMENTATIONS = ["xla", "pallas_tpu"]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("block", [8, 256])
def test_norms_are_accurate(implementation, block, interpret, monkeypatch):
  monkeypatch.setattr(register_blocks, "_LARGEST", block)
  interpret()
  leaves = tree()
  norms = leaf_norms(Packed.of(leaves), implementation=implementation)
  check(leaves, norms)


def sharded(leaves, devices, function):
  """Call a function of a device's shard and its number on several devices."""
  packing = pack_like(leaves, devices)
  mesh = Mesh(np.array(jax.devices()[:devices]), ("x",))

  def local(buffer):
    shard = Shard(jax.lax.axis_index("x"), ("x",))
    return function(Packed(buffer, packing), shard)

  run = jax.shard_map(
    local, mesh=mesh, in_specs=P("x"), out_specs=P(), check_vma=True
  )
  return jax.jit(run)(packing.pack(leaves))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("devices", [1, 2, 3, 4, 8])
def test_norms_of_shards_cover_whole_leaves(
  implementation, devices, interpret_tpu
):
  interpret_tpu()
  leaves = tree()

  def norms(packed, shard):
    return leaf_norms(packed, shard=shard, implementation=implementation)

  check(leaves, sharded(leaves, devices, norms))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_one_leaf_that_is_not_finite(implementation, bad, interpret):
  interpret()
  leaves = tree()
  leaves[2][3, 4] = bad
  norms = leaf_norms(Packed.of(leaves), implementation=implementation)
  assert np.flatnonzero(~np.isfinite(norms)).tolist() == [2]


def test_no_races_and_no_uninitialized_memory(monkeypatch):
  monkeypatch.setattr(register_blocks, "_LARGEST", 8)
  leaves = tree()[:6]
  with as_on_a_tpu():
    norms = leaf_norms(Packed.of(leaves), implementation="pallas_tpu")
  check(leaves, norms)


def test_too_many_leaves_for_the_chip_are_refused():
  leaves = [jax.ShapeDtypeStruct((), jnp.float32)] * 2000
  packing = pack_like(leaves)
  packed = Packed(jnp.zeros((packing.rows, 128)), packing)
  with pytest.raises(NotImplementedError, match="of 2000 leaves in VMEM"):
    leaf_norms(packed, implementation="pallas_tpu")
  assert leaf_norms(packed).shape == (2000,)


def test_another_buffer_is_refused():
  packed = Packed.of(tree())
  half = Packed(packed.buffer[: packed.packing.rows // 2], packed.packing)
  with pytest.raises(ValueError, match=r"pass shard= for a shard of it"):
    leaf_norms(half)
  with pytest.raises(ValueError, match="the buffer 16 on each of 2 devices"):
    sharded(
      tree(),
      2,
      lambda packed, shard: leaf_norms(
        Packed(packed.buffer[:16], packed.packing), shard=shard
      ),
    )
