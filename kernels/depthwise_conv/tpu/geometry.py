r"""Geometry of the depthwise kernels: the call's sizes and the grid's blocks.

A step `(c, n, i)` of the grid has some channels, some images and some rows. A
column is one pixel of all the step's images and channels. In HWNC the channels
fill the 128 lanes of its registers and the images the 8 sublanes; in HWCN the
images fill the lanes. `blocks.packed` sublanes, a sublane tile, are loaded
together, so that a column has one or two registers.

Before a sublane tile is computed, its rows are written to a float32 buffer with
a halo and a border. Forward, the buffer has the activated input; backward, the
cotangent of the output. Below, `x` is a column of the block:

               left    columns of the image    right
                  +---------------------------+
    above      0  | h  h  h  h  h  h  h  h  h |  0    halo: rows of the block
                  +---------------------------+             before this one
               0  | x  x  x  x  x  x  x  x  x |  0
    block      0  | x  x [x  x  x  x] x  x  x |  0    rows of this step
               0  | x  x  x  x  x  x  x  x  x |  0
                  +---------------------------+
    below      0  | h  h  h  h  h  h  h  h  h |  0    halo: rows of the block
                  +---------------------------+             after this one

    0    border: zeros, written once
    h    halo: rows of other blocks; zeros beyond the image; rows of other bands
         beyond a band
    [ ]  tile: `blocks.columns` columns of one row, computed in registers

With stride 2 backward, an input's row and column have a phase, the remainder by
the stride. Inputs of one phase meet the same taps, so phases are computed one
after the other. For kernel_size 3 without padding before the input:

    output        0       1       2
                / | \   / | \   / | \       taps 0, 1, 2
    input      0  1   2   3   4   5   6     phase 0 (0, 2, 4, ...): taps 0 and 2
                                            phase 1 (1, 3, 5, ...): tap 1
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ...common.activation import Activation
from ...common.layout import Layout
from ...tpu.registers import LANES, SUBLANES, TILE
from ..window import Window
from .blocks import Blocks
from .winograd import ALGORITHMS, Algorithm

# Up to this many rows, the rows that meet padding get code of their own, which
# omits the taps that would multiply zeros.
_MOST_TRIMMED_ROWS = 16


class Geometry(NamedTuple):
  """Sizes of a call and of the grid's blocks.

  Attributes:
    rows: Window over the image's rows.
    cols: Window over the image's columns.
    batch: Number of images.
    channels: Number of channels.
    layout: 'HWNC' for channels in the lanes, 'HWCN' for images.
    blocks: Sizes of a grid step.
    activation: Activation of the prologue.
    flat_vectors: True if a block may have 128 values of a `[c]` vector.
    bands: Bands of the image among the channels.
    moments: True if the outputs' moments are computed.
  """

  rows: Window
  cols: Window
  batch: int
  channels: int
  layout: Layout
  blocks: Blocks
  activation: Activation
  flat_vectors: bool
  bands: int = 1
  moments: bool = True

  @property
  def channels_in_lanes(self) -> bool:
    """True if channels fill the lanes; False if images do."""
    return self.layout == "HWNC"

  @property
  def sublane_size(self) -> int:
    """Number of images (HWNC) or channels (HWCN), which fill the sublanes."""
    return self.batch if self.channels_in_lanes else self.channels

  @property
  def grid(self) -> tuple[int, int, int]:
    """Steps over channels, images and rows."""
    lanes = self.channels if self.channels_in_lanes else self.batch
    steps = [
      pl.cdiv(lanes, LANES),
      pl.cdiv(self.sublane_size, self.blocks.sublanes),
    ]
    if not self.channels_in_lanes:
      steps.reverse()
    return steps[0], steps[1], pl.cdiv(self.rows.out, self.blocks.rows)

  @property
  def registers(self) -> int:
    """Registers of a column of a sublane tile."""
    return self.blocks.packed // SUBLANES

  @property
  def groups(self) -> int:
    """Channel groups of a step: sets of channels that share a register."""
    return 1 if self.channels_in_lanes else self.blocks.sublanes // SUBLANES

  @property
  def whole(self) -> bool:
    """True if a step has all rows of its images, and so needs no halo."""
    return self.grid[2] == 1

  @property
  def trims_rows(self) -> bool:
    """True if rows near the border have code that omits the padding's taps."""
    small = self.whole and self.rows.out <= _MOST_TRIMMED_ROWS
    return small and self.bands == 1

  @property
  def algorithm(self) -> Algorithm | None:
    """Winograd algorithm of a row of taps; None to apply each tap by itself."""
    if not self.blocks.winograd:
      return None
    return ALGORITHMS[self.cols.kernel_size]

  @property
  def filter_columns(self) -> int:
    """Products of a row of taps: its taps, or the points of the algorithm."""
    return self.algorithm.points if self.algorithm else self.cols.kernel_size

  @property
  def in_rows(self) -> int:
    """Input rows of a step."""
    if self.whole:
      return self.rows.size
    return self.blocks.rows * self.rows.stride

  @property
  def out_rows(self) -> int:
    """Output rows of a step."""
    return self.rows.out if self.whole else self.blocks.rows

  @property
  def input_shape(self) -> tuple[int, ...]:
    """Shape of a step's block of x or dx."""
    return self.in_rows, self.cols.size, self.blocks.sublanes, LANES

  @property
  def output_shape(self) -> tuple[int, ...]:
    """Shape of a step's block of y or dy."""
    return self.out_rows, self.cols.out, self.blocks.sublanes, LANES

  def input_block(self) -> pl.BlockSpec:
    """Make the block of x or dx."""
    return self._block(self.input_shape, lambda i: i)

  def output_block(self) -> pl.BlockSpec:
    """Make the block of y or dy."""
    return self._block(self.output_shape, lambda i: i)

  def input_row(self, offset: int) -> pl.BlockSpec:
    """Make the block of one input row, `offset` rows from a block's start."""
    return self._row(self.input_shape, offset, self.rows.size)

  def output_row(self, offset: int) -> pl.BlockSpec:
    """Make the block of one output row, `offset` rows from a block's start."""
    return self._row(self.output_shape, offset, self.rows.out)

  def band_halo_block(self, block: tuple[int, ...], rows: int) -> pl.BlockSpec:
    """Make the block of `rows` rows of other bands, one for all row steps."""
    return self._block((rows, *block[1:]), lambda i: 0)

  def _row(self, block, offset, size):
    # Rows beyond the image are never used, so any row of the image will do.
    return self._block(
      (1, *block[1:]),
      lambda i: jnp.clip(i * block[0] + offset, 0, size - 1),
    )

  def _block(self, shape, row):
    if self.channels_in_lanes:
      return pl.BlockSpec(shape, lambda c, n, i: (row(i), 0, n, c))
    return pl.BlockSpec(shape, lambda c, n, i: (row(i), 0, c, n))

  def unpack_scratch(self, dtype, columns: int) -> dict[str, Any]:
    """Make the scratch to convert `columns` bfloat16 columns in, if needed."""
    pairs = self.blocks.bf16_pairs and dtype == jnp.bfloat16
    if not pairs or self.cols.out < 2:
      return {}
    shape = (1, columns + 1, 1, *TILE)
    return {"unpack_scratch": pltpu.VMEM(shape, jnp.float32)}

  def unpack_scratch_bytes(self, dtype, columns: int) -> int:
    """Compute the VMEM of `unpack_scratch`."""
    scratch = self.unpack_scratch(dtype, columns)
    return sum(4 * math.prod(ref.shape) for ref in scratch.values())


def unpack_scratch_of(refs):
  """Look up the ref of `Geometry.unpack_scratch`; None if there is none."""
  return getattr(refs, "unpack_scratch", None)


def double_buffer_bytes(shape: tuple[int, ...], dtype: jnp.dtype) -> int:
  """Compute the VMEM of a block and of the next, which is fetched meanwhile."""
  return 2 * math.prod(shape) * jnp.dtype(dtype).itemsize
