from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P
from support.abstract_tpu import on
from support.first_block import sizes_and_blocks

from podscale.collectives import device_varying
from podscale.kernels.tpu.chip import target_chip
from podscale.model.bands import Sizes
from podscale.model.batch_norm import BatchNorm
from podscale.model.block import Block
from podscale.model.pending import Pending
from podscale.model.remat import bytes_kept, bytes_to_keep, choose_remat
from podscale.model.spec import BlockSpec

BF16 = jnp.dtype(jnp.bfloat16)
SPEC = BlockSpec(3, 2, 3, 18, 5, 1, 1.0)


def test_bytes_are_those_of_the_arrays_and_their_empty_lanes():
  # 18, 3 and 5 channels take 128 lanes each; of 8 bands 144 take 256 and 24 and
  # 40 take 128.
  sizes = Sizes(16, 16, 4, BF16)
  pixels, image = 16 * 16, 4 * 2
  expansion, rest = (128 * pixels, (128 + 2 * 128) * pixels // 4 + 128 * pixels)
  assert bytes_kept(sizes, [SPEC], [1]) == [(image * expansion, image * rest)]
  expansion, rest = (256 // 8, (256 + 2 * 128) // 8 / 4 + 128 // 8)
  assert bytes_kept(sizes, [SPEC], [8]) == [
    (image * pixels * expansion, image * pixels * rest)
  ]
  # A block without expansion has nothing to recompute.
  same = SPEC._replace(expanded=3)
  assert bytes_kept(sizes, [same], [1])[0][0] == 0


def chosen(name, chip, batch):
  sizes, blocks = sizes_and_blocks(name, batch)
  bands = [1] * len(blocks)
  kept = bytes_kept(sizes, blocks, bands)
  if chip is None:
    return kept, choose_remat(sizes, blocks, bands)
  with on(chip):
    return kept, choose_remat(sizes, blocks, bands)


def taken(chip, bands=1, batch=4):
  """Count the bytes of a step's memory that are not for kept results."""
  with on(chip):
    room = 0.95 * target_chip().hbm_bytes
    return room - bytes_to_keep(Sizes(16, 16, batch, BF16), [SPEC], [bands])


def test_some_memory_is_for_temporaries_and_weights():
  # 18 channels take 128 lanes: three such arrays, plus weights and gradients.
  weights = 8 * 18 * (3 + 9 + 2 + 5)
  lane = 3 * 16 * 16 * 4 * 2
  assert taken("v5e") == pytest.approx(128 * lane + weights)
  # The 144 channels of 8 bands take 256 lanes.
  assert taken("v3", bands=8) == pytest.approx(256 // 8 * lane + weights)
  assert taken("v5e", batch=8) == pytest.approx(2 * 128 * lane + weights)


def test_a_device_of_two_cores_has_the_memory_of_both():
  weights_and_arrays = taken("v5p")
  with on("v5p", cores=2):
    both = bytes_to_keep(Sizes(16, 16, 4, BF16), [SPEC], [1])
  # A core has 51.5e9 bytes.
  assert both == pytest.approx(2 * 0.95 * 51.5e9 - weights_and_arrays)


def test_all_is_kept_where_it_fits_or_the_memory_is_not_known():
  assert not any(chosen("b0", "v4", 64)[1])
  assert not any(chosen("b7", None, 1024)[1])


def test_as_few_as_it_takes_the_largest_first():
  kept, remat = chosen("b5", "v4", 40)
  sizes, blocks = sizes_and_blocks("b5", 40)
  with on("v4"):
    limit = bytes_to_keep(sizes, blocks, [1] * len(blocks))
  total = sum(map(sum, kept))
  again = [
    expansion for (expansion, _), r in zip(kept, remat, strict=True) if r
  ]
  others = [
    expansion for (expansion, _), r in zip(kept, remat, strict=True) if not r
  ]
  assert total > limit * 1.01 >= total - sum(again)
  assert total - sum(again) + min(again) > limit
  assert max(others) <= min(again)


@pytest.mark.parametrize("chip", ["v5e", "v6e"])
def test_what_vmem_holds_is_made_again_though_all_would_fit(chip):
  kept, remat = chosen("b2", chip, 64)
  # 128 MiB less a sixteenth, less 60 MB.
  assert remat == [0 < expansion <= 65.8e6 for expansion, _ in kept]
  assert any(expansion > 65.8e6 for expansion, _ in kept)


def test_what_never_fits_keeps_no_expansion():
  kept, remat = chosen("b7", "v3", 512)
  assert remat == [expansion > 0 for expansion, _ in kept]


@pytest.fixture(scope="module")
def gradients():
  """Trace a block, with and without recomputing its expansion."""
  block = Block(SPEC, norm=partial(BatchNorm, axis_name=None), rngs=nnx.Rngs(0))
  graph, params, stats = nnx.split(block, nnx.Param, ...)
  x = jax.random.normal(jax.random.key(0), (6, 6, 4, 3))

  def run(remat, params, x):
    model = nnx.merge(graph, params, stats, copy=True)
    y = model(Pending(x, layout="HWNC"), None, remat=remat).raw
    return y, nnx.state(model, nnx.BatchStat)

  def of(remat):
    return jax.vjp(partial(run, remat), params, x, has_aux=True)

  return of


def test_gradients_and_statistics_are_the_same(gradients):
  (y, vjp, stats), (y_again, vjp_again, stats_again) = map(
    gradients, (False, True)
  )
  dy = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
  kept, again = (
    jax.tree.leaves((y, stats, vjp(dy)))
    for y, stats, vjp in ((y, stats, vjp), (y_again, stats_again, vjp_again))
  )
  # One of them is compiled as a whole. Sums are over 6 * 6 * 4 values: the
  # square root of as many roundings, of the largest value there is.
  allowed = 12 * 2.0**-24 * max(np.abs(a).max() for a in kept)
  for a, b in zip(kept, again, strict=True):
    assert np.abs(a - b).max() <= allowed


def test_the_expansion_is_not_kept(gradients):
  def kept(remat):
    _, vjp, _ = gradients(remat)
    return {leaf.shape for leaf in jax.tree.leaves(vjp) if leaf.ndim == 4}

  # The input of the block and the results of its three convolutions.
  rest = {(6, 6, 4, 3), (3, 3, 4, 18), (3, 3, 4, 5)}
  assert kept(False) == rest | {(6, 6, 4, 18)}
  assert kept(True) == rest


def test_a_groups_moments_are_not_reduced_again():
  mesh = jax.make_mesh((2,), ("member",), (jax.sharding.AxisType.Auto,))

  def all_reduces(remat):
    block = Block(
      SPEC, norm=partial(BatchNorm, axis_name="member"), rngs=nnx.Rngs(0)
    )
    graph, params, stats = nnx.split(block, nnx.Param, ...)

    def gradients(params, stats, x):
      def loss(params):
        model = nnx.merge(graph, params, stats, copy=True)
        return model(Pending(x, layout="HWNC"), None, remat=remat).raw.sum()

      return jax.tree.leaves(jax.grad(loss)(device_varying(params, "member")))

    step = jax.shard_map(
      gradients,
      mesh=mesh,
      in_specs=(P(), P(), P(None, None, "member")),
      out_specs=P("member"),
    )
    x = jax.ShapeDtypeStruct((6, 6, 4, 3), jnp.float32)
    return jax.jit(step).lower(params, stats, x).as_text().count("all_reduce")

  # Collectives of three batch norms, forward and backward.
  assert (all_reduces(False), all_reduces(True)) == (6, 6)
