"""Choice of block sizes.

The figures in comments are estimates of `python -m podscale.bench kernels`, in
us, for the given sizes of blocks.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp

from ...tpu.chip import Chip
from ...tpu.columns import even_chunk
from ...tpu.registers import LANES, SUBLANES, packed_rows
from .blocks import Blocks
from .geometry import Geometry
from .winograd import ALGORITHMS

Direction = Literal["forward", "backward"]

# A block should be long enough to hide the latency of its DMA, and short enough
# that the first block arrives soon. Forward, 64 images: v5e 7x7x1152 5x5, 16
# images a step 59.5, 32 48.9, 64 46.2; 56x56x144 3x3, 14 rows a step 318, 28
# 318, 56 331; v6e 14x14x672 5x5 stride 2, blocks of 0.7 MB 38.3, of 1.4 MB
# 31.8, of 2.8 MB 31.8.
_LEAST_BLOCK_BYTES = 1_400_000
# With many steps blocks may be longer, which saves halo rows. v5e, 64 images:
# 264x264x192 3x3 stride 2 backward, 7 MB 7,448, 14 MB 7,225, 28 MB 7,260;
# 300x300x32 3x3 forward (HWCN) 2,178, 2,012 and 2,012.
_MOST_BLOCK_BYTES = 7_000_000, 14_000_000
_STEPS = 16
# VMEM that the compiler takes in addition: spilled registers, and a share. For
# 190x190x48 in HWCN, backward on v5e, it took 1.5 MiB of 120 MiB.
_SPILL_BYTES = 100 * 4 * SUBLANES * LANES
_COMPILER_SHARE = 1 / 64


class _BodySize(NamedTuple):
  """Columns that the compiler schedules together.

  Attributes:
    columns: Most columns of a tile.
    fill_columns: Most columns that are written to the buffer together.
    pixels: Approximate columns of a loop body, from several rows if a tile has
      fewer.
  """

  columns: int
  fill_columns: int
  pixels: int


def choose_blocks(
  g: Geometry,
  dtype: jnp.dtype,
  chip: Chip,
  direction: Direction,
  vmem_bytes: Callable[[Geometry, jnp.dtype], int],
) -> Blocks:
  """Choose block sizes that fit in VMEM and were fast in estimates of B0 to B7.

  Args:
    g: Geometry of the call; its blocks are ignored.
    dtype: Data type of x.
    chip: Chip to choose for.
    direction: Kernel to choose for.
    vmem_bytes: Function that computes the kernel's VMEM for a geometry.

  Raises:
    NotImplementedError: One row of 8 images does not fit in VMEM.
  """
  smallest = _smallest(g, dtype, chip, direction)

  def blocks(rows: int, sublanes: int) -> Blocks:
    return dataclasses.replace(smallest, rows=rows, sublanes=sublanes)

  size = jnp.dtype(dtype).itemsize
  steps = g._replace(blocks=blocks(g.rows.out, smallest.packed)).grid
  step_bytes = g.rows.size * g.cols.size * smallest.packed * LANES * size
  few, many = _MOST_BLOCK_BYTES
  most = max(few, min(many, math.prod(steps) * step_bytes // _STEPS))

  usable = int(chip.vmem_bytes * (1 - _COMPILER_SHARE)) - _SPILL_BYTES

  def block_bytes(b: Blocks) -> int:
    rows = min(b.rows * g.rows.stride, g.rows.size)
    return rows * g.cols.size * b.sublanes * LANES * size

  def fits(b: Blocks) -> bool:
    taken = vmem_bytes(g._replace(blocks=b), dtype)
    return block_bytes(b) <= most and taken <= usable

  for pieces in range(1, g.rows.out + 1):
    chosen = blocks(-(-g.rows.out // pieces), smallest.packed)
    if fits(chosen):
      break
  else:
    raise NotImplementedError(
      f"depthwise_conv_bn: pallas_tpu needs "
      f"{vmem_bytes(g._replace(blocks=chosen), dtype):,} bytes of VMEM for a "
      f"row of {g.cols.size} columns, {chosen.packed} by {LANES}, and "
      f"{chip.name} has {chip.vmem_bytes:,}; use implementation='xla'"
    )
  if chosen.bf16_pairs:  # with more images a step, v3 needs a DMA per pixel
    return chosen
  while (
    block_bytes(chosen) < _LEAST_BLOCK_BYTES
    and chosen.sublanes < g.sublane_size
  ):
    larger = blocks(chosen.rows, 2 * chosen.sublanes)
    if not fits(larger):
      break
    chosen = larger
  return chosen


def _smallest(
  g: Geometry, dtype: jnp.dtype, chip: Chip, direction: Direction
) -> Blocks:
  """Choose everything but rows and sublanes, which are the smallest here."""
  many_registers = chip.vector_registers > 32
  narrow = dtype == jnp.bfloat16
  # In float32 the rounding errors of winograd would show. It keeps more values
  # at a time than 32 registers hold.
  winograd = (
    many_registers
    and narrow
    and g.rows.stride == 1
    and g.cols.kernel_size in ALGORITHMS
  )
  body = _body_size(g, direction, many_registers, winograd)
  columns = even_chunk(-(-g.cols.size // g.cols.stride), body.columns)
  fill_columns = even_chunk(g.cols.size, body.fill_columns)
  packed = _packed(g.sublane_size, dtype) if many_registers else SUBLANES
  bf16_pairs = (
    g.channels_in_lanes and chip.unpacks_in_memory and narrow and columns > 1
  )
  return Blocks(
    rows=1,
    sublanes=packed,
    packed=packed,
    columns=columns,
    fill_columns=max(fill_columns, 1 + bf16_pairs),
    unroll=max(body.pixels // columns, 1),
    bf16_pairs=bf16_pairs,
    winograd=winograd,
  )


def _packed(size: int, dtype: jnp.dtype) -> int:
  """Choose the sublanes to load together: 8 if 16 would leave many empty.

  v5e, 228x228x24 3x3, 64 images in the lanes: 16 channels at a time 1,101
  forward and 2,304 backward, 8 at a time 860 and 1,732.
  """
  packed = packed_rows(dtype)
  full, half = (-(-size // rows) * rows for rows in (packed, SUBLANES))
  return SUBLANES if full > 1.05 * half else packed


def _body_size(
  g: Geometry, direction: Direction, many_registers: bool, winograd: bool
) -> _BodySize:
  """Choose the size of a loop body by estimates for v3, v5e and v6e.

  v6e, 64 images, forward with winograd: 56x56x144 3x3, 14 columns 220, 28 210,
  56 202, two rows of 56 198; 14x14x672 5x5, one row 72.4, four 68.2; backward
  of the former, 8 columns 409, 16 393, 28 396. 112x112x96 3x3 stride 2 forward,
  14 columns 204, 56 of two rows 188.
  """
  kernel_size, stride = g.rows.kernel_size, g.rows.stride
  if not many_registers:
    few = kernel_size > 3 or (direction == "backward" and stride == 2)
    return _BodySize(7 if few else 14, 28, 1)
  if winograd:
    few = direction == "backward"
    return _BodySize(16, 112, 56) if few else _BodySize(112, 112, 112)
  if direction == "forward":
    pixels = {3: 112, 5: 56}.get(kernel_size, 28)
    return _BodySize(min(pixels, 56), 112, pixels)
  wide = stride == 1 and g.cols.size > 16
  return _BodySize(8 if wide else 14, 112, 28)
