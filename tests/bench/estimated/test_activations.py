"""What is kept for the backward pass, and the batches that fit."""

import dataclasses
from collections import Counter

import jax.numpy as jnp
from support import small_step
from support.libtpu_mark import NEEDS_LIBTPU

from podscale.bench.estimated.activations import (
  activation_rows,
  kept_arrays,
  largest_batch,
)
from podscale.bench.plain.model import PlainEfficientNet
from podscale.model import EfficientNet
from podscale.model.spec import block_specs

# Wide enough that the first block has no skip, for which what enters it would
# be kept as it is normalised.
SPEC = dataclasses.replace(small_step.SPEC, width=0.5)


def test_images_are_kept_as_raw_results_of_convolutions_and_as_they_enter():
  batch = 4
  kept = [x for x in kept_arrays(EfficientNet, SPEC, batch) if x.ndim == 4]
  blocks = block_specs(SPEC)
  # The images, and the stem's result, which enters the first block as it is.
  shapes = [(batch, 32, 32, 3), (32, 32, batch, blocks[0].in_filters)]
  side = 32
  for i, block in enumerate(blocks):
    if i:
      shapes.append((side, side, batch, block.in_filters))
    if block.expanded != block.in_filters:
      shapes.append((side, side, batch, block.expanded))
    side = -(-side // block.stride)
    shapes.append((side, side, batch, block.expanded))
    shapes.append((side, side, batch, block.out_filters))
  # What the head reads, and its result.
  shapes.append((side, side, batch, blocks[-1].out_filters))
  shapes.append((side, side, batch, 640))
  images = [x for x in kept if batch in x.shape[:3]]
  assert Counter(x.shape for x in images) == Counter(shapes)
  assert {x.dtype for x in images} == {jnp.dtype(jnp.bfloat16)}


def test_plain_jax_keeps_several_times_as_much():
  ours, plain = (
    sum(x.size * x.dtype.itemsize for x in kept_arrays(network, SPEC, 64))
    for network in (EfficientNet, PlainEfficientNet)
  )
  assert 4 * ours < plain


class TestWithTheCompilersChips:
  pytestmark = NEEDS_LIBTPU

  def test_the_largest_batch_is_as_the_memory(self):
    v5e, v6e = (largest_batch("b0", chip) for chip in ("v5e", "v6e"))
    assert v5e % 8 == 0
    # Twice the memory, of which the weights take as much.
    assert 2 * v5e <= v6e <= 2.1 * v5e

  def test_a_row_has_bytes_and_batches(self):
    (row,) = activation_rows(["b0"], chips=["v5e"])
    assert row["ratio"] == row["bytes"] / row["plain_bytes"]
    assert row["batch on v5e"] == largest_batch("b0", "v5e")
