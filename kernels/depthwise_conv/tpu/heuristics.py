"""Block sizes where nothing better is known."""

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

# A block of one tensor should be long enough that its DMA's latency does not
# show, and short enough that the first of them is soon there. Forward, 64
# images: v5e 7x7x1152 5x5, 16 a step 59.5 us, 32 48.9, 64 46.2; 56x56x144 3x3,
# 14 rows a step 318 us, 28 318, 56 331; v6e 14x14x672 5x5 stride 2, blocks of
# 0.7 MB 38.3 us, of 1.4 MB 31.8, of 2.8 MB 31.8.
_LEAST_BLOCK_BYTES = 1_400_000
# Where there are many blocks they can be longer, which saves halo. v5e, 64
# images: 264x264x192 3x3 stride 2 backward, 7 MB 7,448 us, 14 MB 7,225, 28 MB
# 7,260; 300x300x32 3x3 forward (HWCN) 2,178, 2,012 and 2,012.
_MOST_BLOCK_BYTES = 7_000_000, 14_000_000
_STEPS = 16
# What the compiler takes besides: registers that it stores, and a share. For
# 190x190x48 in HWCN, backward on v5e, it was 1.5 MiB of 120.
_SPILLS = 100 * 4 * SUBLANES * LANES
_COMPILERS_SHARE = 1 / 64


class _Body(NamedTuple):
  """How much the compiler schedules together.

  Attributes:
    columns: At most, of those that are convolved.
    filled: At most, of those on their way into the buffer.
    pixels: About so many columns, of several rows where one has fewer.
  """

  columns: int
  filled: int
  pixels: int


def choose_blocks(
  g: Geometry,
  dtype: jnp.dtype,
  chip: Chip,
  direction: Direction,
  vmem_bytes: Callable[[Geometry, jnp.dtype], int],
) -> Blocks:
  """Block sizes that were fast on the layers of B0 to B7 and fit in VMEM.

  Args:
    g: The call; its own blocks are not used.
    dtype: Of x.
    chip: What it is for.
    direction: The kernel.
    vmem_bytes: What the kernel takes with the blocks of a geometry.

  Raises:
    NotImplementedError: not even one row of 8 images fits.
  """
  smallest = _smallest(g, dtype, chip, direction)

  def blocks(rows: int, sublanes: int) -> Blocks:
    return dataclasses.replace(smallest, rows=rows, sublanes=sublanes)

  size = jnp.dtype(dtype).itemsize
  steps = g._replace(blocks=blocks(g.rows.out, smallest.packed)).grid
  step_bytes = g.rows.size * g.cols.size * smallest.packed * LANES * size
  few, many = _MOST_BLOCK_BYTES
  most = max(few, min(many, math.prod(steps) * step_bytes // _STEPS))

  usable = int(chip.vmem_bytes * (1 - _COMPILERS_SHARE)) - _SPILLS

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
      f"depthwise_conv_bn: a row of {g.cols.size} columns, {chosen.packed} by "
      f"{LANES}, takes {vmem_bytes(g._replace(blocks=chosen), dtype):,} bytes "
      f"of VMEM; {chip.name} has {chip.vmem_bytes:,}"
    )
  if chosen.pairs:  # more images a step take v3 a DMA for each pixel
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
  """All but how much of the arrays a step has."""
  large = chip.vector_registers > 32
  narrow = dtype == jnp.bfloat16
  # In float32 its rounding would show. It keeps more values at a time than 32
  # registers hold.
  minimal = (
    large and narrow and g.rows.stride == 1 and g.cols.kernel_size in ALGORITHMS
  )
  body = _body(g, direction, large, minimal)
  columns = even_chunk(-(-g.cols.size // g.cols.stride), body.columns)
  filled = even_chunk(g.cols.size, body.filled)
  packed = _packed(g.sublane_size, dtype) if large else SUBLANES
  turns = max(body.pixels // columns, 1)
  pairs = (
    g.channels_in_lanes and chip.unpacks_in_memory and narrow and columns > 1
  )
  filled = max(filled, 1 + pairs)
  return Blocks(1, packed, packed, columns, filled, turns, pairs, minimal)


def _packed(size: int, dtype: jnp.dtype) -> int:
  """Sublanes to load together: all of a register, if little of it is empty.

  v5e, 228x228x24 3x3, 64 images in the lanes: 16 channels at a time 1,101 us
  forward and 2,304 backward, 8 at a time 860 and 1,732.
  """
  packed = packed_rows(dtype)
  full, half = (-(-size // rows) * rows for rows in (packed, SUBLANES))
  return SUBLANES if full > 1.05 * half else packed


def _body(
  g: Geometry, direction: Direction, large: bool, minimal: bool
) -> _Body:
  """Measured on v3, and on v5e and v6e, which have more registers.

  v6e, 64 images, forward by minimal filtering: 56x56x144 3x3, 14 columns 220
  us, 28 210, 56 202, two rows of 56 198; 14x14x672 5x5, one row 72.4, four
  68.2; backward of the former, 8 columns 409, 16 393, 28 396. 112x112x96 3x3
  stride 2 forward, 14 columns 204, 56 of two rows 188.
  """
  kernel, stride = g.rows.kernel_size, g.rows.stride
  if not large:
    few = kernel > 3 or (direction == "backward" and stride == 2)
    return _Body(7 if few else 14, 28, 1)
  if minimal:
    few = direction == "backward"
    return _Body(16, 112, 56) if few else _Body(112, 112, 112)
  if direction == "forward":
    pixels = {3: 112, 5: 56}.get(kernel, 28)
    return _Body(min(pixels, 56), 112, pixels)
  wide = stride == 1 and g.cols.size > 16
  return _Body(8 if wide else 14, 112, 28)
