"""What the depthwise kernels know of a call when they are traced."""

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

# Up to so many rows, those that meet padding are convolved by code of their
# own, which leaves the padding's taps out.
_OWN_CODE_ROWS = 16


class Geometry(NamedTuple):
  """Sizes of a call and how the grid cuts it.

  A step of the grid `(c, n, i)` has some channels of some images, and some
  rows of them. One of channels and images is in the lanes, all 128 of them,
  the other in the sublanes, 8 to a register.

  Attributes:
    rows: Window over the image's rows.
    cols: Window over its columns.
    batch: Images.
    channels: Channels.
    layout: HWNC has the channels in the lanes, HWCN the images.
    blocks: Sizes of a grid step.
    activation: Of the prologue.
    flat_vectors: Whether a block may have 128 values of a vector `[c]`.
    bands: Of the image, among the channels.
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

  @property
  def channels_in_lanes(self) -> bool:
    """Else the images are."""
    return self.layout == "HWNC"

  @property
  def sublane_size(self) -> int:
    """How many channels or images there are along the sublanes."""
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
    """Registers of a column that are loaded together."""
    return self.blocks.packed // SUBLANES

  @property
  def groups(self) -> int:
    """Channels of a step that need per-channel registers of their own."""
    return 1 if self.channels_in_lanes else self.blocks.sublanes // SUBLANES

  @property
  def whole(self) -> bool:
    """Whether a step has all rows of its images, and so needs no halo."""
    return self.grid[2] == 1

  @property
  def trims_rows(self) -> bool:
    """Whether rows at the border have code without the padding's taps."""
    small = self.whole and self.rows.out <= _OWN_CODE_ROWS
    return small and self.bands == 1

  @property
  def algorithm(self) -> Algorithm | None:
    """That of minimal filtering, or None for each tap by itself."""
    return ALGORITHMS[self.cols.kernel_size] if self.blocks.minimal else None

  @property
  def products(self) -> int:
    """Products of a filter's row: its taps, or an algorithm's points."""
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
    """Of a step's block of an array of the input's shape."""
    return self.in_rows, self.cols.size, self.blocks.sublanes, LANES

  @property
  def output_shape(self) -> tuple[int, ...]:
    """Of a step's block of an array of the output's shape."""
    return self.out_rows, self.cols.out, self.blocks.sublanes, LANES

  def input_block(self) -> pl.BlockSpec:
    """Of an array of the input's shape."""
    return self._block(self.input_shape, lambda i: i)

  def output_block(self) -> pl.BlockSpec:
    """Of an array of the output's shape."""
    return self._block(self.output_shape, lambda i: i)

  def input_row(self, offset: int) -> pl.BlockSpec:
    """One input row, `offset` rows from the start of a step's block."""
    return self._row(self.input_shape, offset, self.rows.size)

  def output_row(self, offset: int) -> pl.BlockSpec:
    """One output row, `offset` rows from the start of a step's block."""
    return self._row(self.output_shape, offset, self.rows.out)

  def edge_block(self, block: tuple[int, ...], rows: int) -> pl.BlockSpec:
    """`rows` rows beyond a band's edge, for all of a step's blocks of rows."""
    return self._block((rows, *block[1:]), lambda i: 0)

  def _row(self, block, offset, size):
    # A row beyond the image is not used; any that exists will do.
    return self._block(
      (1, *block[1:]),
      lambda i: jnp.clip(i * block[0] + offset, 0, size - 1),
    )

  def _block(self, shape, row):
    if self.channels_in_lanes:
      return pl.BlockSpec(shape, lambda c, n, i: (row(i), 0, n, c))
    return pl.BlockSpec(shape, lambda c, n, i: (row(i), 0, c, n))

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


def stage_of(refs):
  """The ref of `Geometry.stage`, or None."""
  return getattr(refs, "stage", None)


def vmem_of(shape: tuple[int, ...], dtype: jnp.dtype) -> int:
  """Bytes of a block that is fetched while the one before it is used."""
  return 2 * math.prod(shape) * jnp.dtype(dtype).itemsize
