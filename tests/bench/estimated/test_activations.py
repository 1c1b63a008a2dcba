"""Activations kept for the backward pass, and the batches that fit."""

import dataclasses
from collections import Counter

import jax.numpy as jnp
import pytest
from support import small_step
from support.libtpu_mark import NEEDS_LIBTPU

from podscale.bench.estimated.activations import (
  activation_rows,
  kept_arrays,
  largest_batch,
)
from podscale.bench.estimated.static import target
from podscale.bench.plain.model import PlainEfficientNet
from podscale.model import EfficientNet, model_spec
from podscale.model.bands import Sizes, choose_bands
from podscale.model.remat import bytes_kept, bytes_to_keep
from podscale.model.spec import block_specs

# Wide enough that the first block has no skip; with a skip the network would
# keep the block's input after normalisation.
SPEC = dataclasses.replace(small_step.SPEC, width=0.5)


def kept_shapes(spec, batch, head):
  """List what a network has to keep: raw convolutions, and inputs of blocks."""
  blocks, side = block_specs(spec), spec.resolution
  half = -(-side // spec.stem_stride)
  # The stem's result enters the first block unchanged.
  shapes = [(batch, side, side, 3), (half, half, batch, blocks[0].in_filters)]
  side = half
  for i, block in enumerate(blocks):
    if i:
      shapes.append((side, side, batch, block.in_filters))
    if block.expanded != block.in_filters:
      shapes.append((side, side, batch, block.expanded))
    side = -(-side // block.stride)
    shapes.append((side, side, batch, block.expanded))
    shapes.append((side, side, batch, block.out_filters))
  # The input of the head, and the head's result.
  shapes.append((side, side, batch, blocks[-1].out_filters))
  shapes.append((side, side, batch, head))
  return shapes


def test_a_network_keeps_raw_convolutions_and_inputs_of_blocks():
  batch = 4
  spec = dataclasses.replace(SPEC, resolution=32)
  kept = [x for x in kept_arrays(EfficientNet, spec, batch) if x.ndim == 4]
  images = [x for x in kept if batch in x.shape[:3]]
  assert Counter(x.shape for x in images) == Counter(
    kept_shapes(spec, batch, head=640)
  )
  assert {x.dtype for x in images} == {jnp.dtype(jnp.bfloat16)}


def test_plain_jax_keeps_several_times_as_much():
  ours, plain = (
    sum(x.size * x.dtype.itemsize for x in kept_arrays(network, SPEC, 64))
    for network in (EfficientNet, PlainEfficientNet)
  )
  assert 4 * ours < plain


class TestWithTheCompilersChips:
  pytestmark = NEEDS_LIBTPU

  def test_the_largest_batch_grows_with_the_memory(self):
    v5e, v6e = (largest_batch("b0", chip) for chip in ("v5e", "v6e"))
    assert v5e % 8 == 0
    # Twice the memory, of which the weights take as much.
    assert 2 * v5e <= v6e <= 2.1 * v5e

  def test_no_larger_multiple_of_8_fits(self):
    spec = model_spec("b0")
    blocks = block_specs(spec)

    def fits(batch):
      images = Sizes(224, 224, batch, jnp.dtype(jnp.bfloat16))
      sizes = images.strided(2)
      bands = choose_bands(sizes, blocks)
      kept = bytes_kept(sizes, blocks, bands)
      limit = bytes_to_keep(sizes, blocks, bands)
      return sum(again for _, again in kept) <= limit

    with target("v5e"):
      fitting = [batch for batch in range(8, 1600, 8) if fits(batch)]
    assert fitting == list(range(8, fitting[-1] + 8, 8))
    assert largest_batch("b0", "v5e") == fitting[-1]

  def test_a_row_has_the_bytes_of_an_image(self):
    (row,) = activation_rows(["b0"], chips=["v5e"])
    values = sum(
      height * width * channels
      for height, width, _, channels in kept_shapes(model_spec("b0"), 1, 1280)[
        1:
      ]
    )
    # In bfloat16; beside these, small vectors and the image itself.
    assert 2 * values < row["bytes"] < 1.03 * 2 * values
    assert row["ratio"] == pytest.approx(row["bytes"] / row["plain_bytes"])
    assert row["batch on v5e"] % 8 == 0
