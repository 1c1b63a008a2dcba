"""Choice of the number of bands that each block cuts its images into.

A block whose tensors have few channels leaves most of a TPU's lanes empty.
`kernels/common/bands.py` explains how bands fill them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .. import kernels
from ..kernels.surface import LANES
from .spec import BlockSpec

# Passes through memory, forward and backward together, fitted to the times of
# compiled blocks (bench/results/step.md): over each tensor of expanded channels
# (_WIDE), over the input of a block and over its output.
_WIDE, _INPUT, _OUTPUT = 12, 6, 10
# Passes over expanded channels that also read the halo rows of a band.
_HALO = 5
# Cost factor of a tensor with fewer channels than lanes: XLA prefers columns or
# images in the lanes, and copies the tensor there and back.
_FEWER_THAN_LANES = 2
# Passes to cut the image into bands, or to join them: on v3, 130x130x32 with 16
# channels, 13 bands to 5 took 5 ms, or 16 passes (bench/results/step.md).
_CHANGE = 8
# Passes to split bands into smaller ones, or to join them.
_MOVE = 3
# A 1x1 convolution is three matmuls, forward and backward. With 128 by 128
# channels each takes the MXU about as long as a pass over 128 channels, on slow
# and fast chips alike; the gradient of the weights takes longer.
_MATMUL = 4
# Least share of a block's passes that bands must save.
_LEAST_GAIN = 0.05


class Sizes(NamedTuple):
  """Sizes of a block's input.

  Attributes:
    rows: Rows of the image.
    columns: Columns of the image.
    batch: Number of images.
    dtype: Dtype of activations.
  """

  rows: int
  columns: int
  batch: int
  dtype: jnp.dtype

  def strided(self, stride: int) -> "Sizes":
    """Return the sizes after a convolution with this stride."""
    rows, columns = (-(-s // stride) for s in (self.rows, self.columns))
    return self._replace(rows=rows, columns=columns)


def choose_bands(sizes: Sizes, blocks: Sequence[BlockSpec]) -> list[int]:
  """Choose the number of bands of each block that moves the fewest bytes.

  A block has more than one band only if the depthwise kernel runs on bands,
  because XLA does not convolve in bands. Inside `default_implementation` every
  block has one band.

  Args:
    sizes: Sizes of the first block's input.
    blocks: Blocks in order.

  Returns:
    Number of bands of each block.
  """
  # Cheapest plan so far for each number of bands of the last block.
  plans: dict[int, tuple[float, list[int]]] = {}
  for block in blocks:
    plans = {
      bands: _cheapest(plans, bands, sizes, block)
      for bands in _possible(sizes, block)
    }
    sizes = sizes.strided(block.stride)
  # The head takes the whole image.
  return min(
    (cost + _change(sizes, blocks[-1].out_filters, bands, 1), plan)
    for bands, (cost, plan) in plans.items()
  )[1]


def _cheapest(plans, bands, sizes, block) -> tuple[float, list[int]]:
  """Extend the plan with the lowest cost by a block with `bands` bands."""
  cost = _passes(sizes, block, bands)
  if not plans:
    return cost, [bands]
  before, plan = min(
    (before + _change(sizes, block.in_filters, last_bands, bands), plan)
    for last_bands, (before, plan) in plans.items()
  )
  return before + cost, [*plan, bands]


def _possible(sizes: Sizes, block: BlockSpec) -> list[int]:
  """List the numbers of bands that the block's depthwise kernel supports.

  With 16 channels, the fewest of the family, 8 bands fill the lanes. With other
  channel counts up to 15 bands may leave fewer lanes empty.
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
  filters = block.kernel_size, block.kernel_size, block.expanded
  try:
    selection = kernels.describe(
      kernels.depthwise_conv_bn,
      jax.ShapeDtypeStruct(shape, sizes.dtype),
      jax.ShapeDtypeStruct(filters, sizes.dtype),
      stride=block.stride,
      bands=bands,
    )
  except (ValueError, NotImplementedError):
    # The bands are shorter than the filters reach, or the requested kernel
    # cannot run.
    return False
  chosen = selection.requested is None
  return chosen and selection.implementation == "pallas_tpu"


def _passes(sizes: Sizes, block: BlockSpec, bands: int) -> float:
  """Estimate the elements that a block moves, empty lanes included."""
  out = sizes.strided(block.stride)
  halo = (block.kernel_size - 1) * bands / sizes.rows if bands > 1 else 0
  wide = (_WIDE + _HALO * halo) * (
    padded(sizes, block.expanded, bands) + padded(out, block.expanded, bands)
  )
  narrow = _INPUT * _narrow(sizes, block.in_filters, bands)
  narrow += _OUTPUT * _narrow(out, block.out_filters, bands)
  matmuls = _MATMUL * (
    _multiplied(out, block.expanded, block.out_filters, bands)
    + (block.expanded != block.in_filters)
    * _multiplied(sizes, block.in_filters, block.expanded, bands)
  )
  cost = wide + narrow + matmuls
  return cost / (1 - _LEAST_GAIN) if bands > 1 else cost


def _narrow(sizes: Sizes, channels: int, bands: int) -> float:
  """Count the elements of a tensor between blocks."""
  times = _FEWER_THAN_LANES if bands * channels < LANES else 1
  return times * padded(sizes, channels, bands)


def _change(sizes: Sizes, channels: int, have: int, want: int) -> float:
  """Estimate the elements that `kernels.change_bands` moves."""
  if have == want:
    return 0
  fewer, more = sorted((have, want))
  if fewer > 1 and more % fewer == 0:
    return _MOVE * sum(padded(sizes, channels, b) for b in (have, want))
  changes = (have != 1) + (want != 1)
  return _CHANGE * changes * padded(sizes, channels, 1)


def _multiplied(sizes: Sizes, rows: int, columns: int, bands: int) -> float:
  """Estimate a 1x1 convolution by a block-diagonal matrix, in elements."""
  return padded(sizes, columns, bands) * -(-bands * rows // LANES)


def padded(sizes: Sizes, channels: int, bands: int) -> float:
  """Count the elements of a tensor for one image, empty lanes included."""
  lanes = -(-bands * channels // LANES) * LANES
  return sizes.rows * sizes.columns / bands * lanes
