"""In how many bands the network's blocks have their images.

A block whose tensors have few channels leaves most of a TPU's lanes empty;
`kernels/common/bands.py` says what is done about it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .. import kernels
from ..kernels.surface import LANES, or_default
from .spec import BlockSpec

# Passes through memory, forward and backward together, as they fit the times
# of compiled blocks (bench/results/step.md): over each tensor of expanded
# channels, what enters a block, and what leaves it.
_WIDE, _ENTERS, _LEAVES = 12, 6, 10
# Of those over expanded channels, the ones that read beyond a band's edge.
_EDGES = 5
# A tensor with fewer channels than lanes costs this many times more: XLA likes
# to have its columns or images in the lanes, and copies it there and back.
_FEWER_THAN_LANES = 2
# To put bands together to the whole image or to cut it: v3, 130x130x32 of 16
# channels, 13 bands to 5 took 5 ms, which is 16 passes over the image.
_CHANGE = 8
# From bands to others that they are parts of, or back.
_MOVE = 3
# A 1x1 convolution is three products, forward and backward. That of 128 by 128
# channels takes the MXU about as long as a pass over 128, the faster chips have
# the faster memory; the kernel's gradient takes longer.
_PRODUCTS = 4
# What bands have to save: a share of a block's passes.
_LEAST_GAIN = 0.05


class Sizes(NamedTuple):
  """Of what enters a block.

  Attributes:
    rows: Of the image.
    columns: Of the image.
    batch: Images.
    dtype: Of activations.
  """

  rows: int
  columns: int
  batch: int
  dtype: jnp.dtype

  def strided(self, stride: int) -> "Sizes":
    """Behind a convolution."""
    rows, columns = (-(-s // stride) for s in (self.rows, self.columns))
    return self._replace(rows=rows, columns=columns)


def choose_bands(sizes: Sizes, blocks: Sequence[BlockSpec]) -> list[int]:
  """How many bands each block has: the way with the fewest bytes to move.

  More than one only where the depthwise kernel runs on them: by itself XLA does
  not convolve in bands. An implementation that is named for all ops gets the
  image as it is.

  Args:
    sizes: Of what enters the first block.
    blocks: In order.
  """
  if or_default(None) is not None:
    return [1] * len(blocks)
  ways: dict[int, tuple[float, list[int]]] = {}
  for block in blocks:
    ways = {
      bands: _cheapest(ways, bands, sizes, block)
      for bands in _possible(sizes, block)
    }
    sizes = sizes.strided(block.stride)
  # The head has the image as it is.
  return min(
    (cost + _change(sizes, blocks[-1].out_filters, bands, 1), way)
    for bands, (cost, way) in ways.items()
  )[1]


def _cheapest(ways, bands, sizes, block) -> tuple[float, list[int]]:
  cost = _passes(sizes, block, bands)
  if not ways:
    return cost, [bands]
  before, way = min(
    (before + _change(sizes, block.in_filters, came_as, bands), way)
    for came_as, (before, way) in ways.items()
  )
  return before + cost, [*way, bands]


def _possible(sizes: Sizes, block: BlockSpec) -> list[int]:
  """Numbers of bands for which the block's convolution has its kernel.

  With 16 channels, the fewest but of the narrowest networks, 8 fill the lanes;
  up to 15 leave fewer empty in others.
  """
  return [1] + [
    bands
    for bands in range(2, LANES // 8)
    if sizes.rows % (bands * block.stride) == 0
    and _has_kernel(sizes, block, bands)
  ]


def _has_kernel(sizes: Sizes, block: BlockSpec, bands: int) -> bool:
  shape = (
    sizes.rows // bands,
    sizes.columns,
    sizes.batch,
    bands * block.expanded,
  )
  filters = block.kernel, block.kernel, block.expanded
  try:
    choice = kernels.describe(
      kernels.depthwise_conv_bn,
      jax.ShapeDtypeStruct(shape, sizes.dtype),
      jax.ShapeDtypeStruct(filters, sizes.dtype),
      stride=block.stride,
      bands=bands,
    )
  except ValueError:  # the bands are shorter than the filters reach
    return False
  return choice.implementation == "pallas_tpu"


def _passes(sizes: Sizes, block: BlockSpec, bands: int) -> float:
  """What a block costs, in elements moved, empty lanes included."""
  behind = sizes.strided(block.stride)
  edges = (block.kernel - 1) * bands / sizes.rows if bands > 1 else 0
  wide = (_WIDE + _EDGES * edges) * (
    padded(sizes, block.expanded, bands) + padded(behind, block.expanded, bands)
  )
  narrow = _ENTERS * _narrow(sizes, block.in_filters, bands)
  narrow += _LEAVES * _narrow(behind, block.out_filters, bands)
  products = _PRODUCTS * (
    _multiplied(behind, block.expanded, block.out_filters, bands)
    + (block.expanded != block.in_filters)
    * _multiplied(sizes, block.in_filters, block.expanded, bands)
  )
  cost = wide + narrow + products
  return cost / (1 - _LEAST_GAIN) if bands > 1 else cost


def _narrow(sizes: Sizes, channels: int, bands: int) -> float:
  """Elements of a tensor between blocks."""
  times = _FEWER_THAN_LANES if bands * channels < LANES else 1
  return times * padded(sizes, channels, bands)


def _change(sizes: Sizes, channels: int, have: int, want: int) -> float:
  """What `kernels.change_bands` moves."""
  if have == want:
    return 0
  fewer, more = sorted((have, want))
  if fewer > 1 and more % fewer == 0:
    return _MOVE * sum(padded(sizes, channels, b) for b in (have, want))
  changes = (have != 1) + (want != 1)
  return _CHANGE * changes * padded(sizes, channels, 1)


def _multiplied(sizes: Sizes, rows: int, columns: int, bands: int) -> float:
  """A 1x1 convolution by a block-diagonal matrix."""
  return padded(sizes, columns, bands) * -(-bands * rows // LANES)


def padded(sizes: Sizes, channels: int, bands: int) -> float:
  """Elements of a tensor for an image, with the lanes that are left empty."""
  lanes = -(-bands * channels // LANES) * LANES
  return sizes.rows * sizes.columns / bands * lanes
