"""What the depthwise kernels know of a call when they are traced."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ..activation import Activation
from ..tpu.call import Operand
from ..tpu.registers import LANES, TILE
from .config import Blocks
from .shapes import Window

# Up to so many rows, those that meet padding are convolved by code of their
# own, which leaves the padding's taps out.
_OWN_CODE_ROWS = 16


class Geometry(NamedTuple):
  """Sizes of a call and how the grid cuts it; `i` counts blocks of rows.

  Attributes:
    rows: Window over the image's rows.
    cols: Window over its columns.
    batch: Images.
    channels: Channels.
    blocks: Sizes of a grid step.
    activation: Of the prologue.
  """

  rows: Window
  cols: Window
  batch: int
  channels: int
  blocks: Blocks
  activation: Activation

  @property
  def grid(self) -> tuple[int, int, int]:
    """Steps over channels, images and rows."""
    return (
      pl.cdiv(self.channels, LANES),
      pl.cdiv(self.batch, self.blocks.images),
      pl.cdiv(self.rows.out, self.blocks.rows),
    )

  @property
  def whole(self) -> bool:
    """Whether a step has all rows of its images, and so needs no halo."""
    return self.grid[2] == 1

  @property
  def trims_rows(self) -> bool:
    """Whether rows at the border have code without the padding's taps."""
    return self.whole and self.rows.out <= _OWN_CODE_ROWS

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
    """Of a step's block of an array of the input's shape."""
    return self.in_rows, self.cols.size, self.blocks.images, LANES

  @property
  def output_shape(self) -> tuple[int, ...]:
    """Of a step's block of an array of the output's shape."""
    return self.out_rows, self.cols.out, self.blocks.images, LANES

  def input_block(self) -> pl.BlockSpec:
    """Of an array of the input's shape."""
    return pl.BlockSpec(self.input_shape, lambda c, n, i: (i, 0, n, c))

  def output_block(self) -> pl.BlockSpec:
    """Of an array of the output's shape."""
    return pl.BlockSpec(self.output_shape, lambda c, n, i: (i, 0, n, c))

  def input_row(self, offset: int) -> pl.BlockSpec:
    """One input row, `offset` rows from the start of a step's block."""
    return _row(self.input_shape, offset, self.rows.size)

  def output_row(self, offset: int) -> pl.BlockSpec:
    """One output row, `offset` rows from the start of a step's block."""
    return _row(self.output_shape, offset, self.rows.out)

  def vector_block(self) -> pl.BlockSpec:
    """Of a per-channel vector `[1, c]`."""
    return pl.BlockSpec((1, LANES), lambda c, n, i: (0, c))

  def filters_input(self, filters: jax.Array) -> Operand:
    """The filters `[k, k, c]`, of all rows and columns."""
    if self.blocks.pairs:
      # Else each step would convert them, one after the other.
      filters = filters.astype(jnp.float32)
    return filters, self.filters_block()

  def filters_block(self) -> pl.BlockSpec:
    """Of an array of the filters' shape."""
    k = self.rows.kernel
    return pl.BlockSpec((k, k, LANES), lambda c, n, i: (0, 0, c))

  def stage(self, dtype, columns: int) -> dict[str, Any]:
    """Scratch to convert `columns` in, where they are loaded in pairs."""
    if not self.blocks.pairs or dtype != jnp.bfloat16 or self.cols.out < 2:
      return {}
    return {"stage": pltpu.VMEM((1, columns + 1, 1, *TILE), jnp.float32)}

  def stage_bytes(self, dtype, columns: int) -> int:
    """What `stage` takes of VMEM."""
    return sum(
      4 * math.prod(ref.shape) for ref in self.stage(dtype, columns).values()
    )

  def buffer_shape(self, rows: int, cols: int) -> tuple[int, ...]:
    """Of a float32 buffer for `rows` by `cols` positions."""
    return rows, cols, self.blocks.packed // TILE[0], *TILE


def _row(block: tuple[int, ...], offset: int, size: int) -> pl.BlockSpec:
  def index(c, n, i):
    # A row beyond the image is not used; any that exists will do.
    return jnp.clip(i * block[0] + offset, 0, size - 1), 0, n, c

  return pl.BlockSpec((1, *block[1:]), index)


def stage_of(refs):
  """The ref of `Geometry.stage`, or None."""
  return getattr(refs, "stage", None)


def vmem_of(shape: tuple[int, ...], dtype: jnp.dtype) -> int:
  """Bytes of a block that is fetched while the one before it is used."""
  return 2 * math.prod(shape) * jnp.dtype(dtype).itemsize
