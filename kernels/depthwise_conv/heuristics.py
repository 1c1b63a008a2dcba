"""Block sizes where nothing better is known."""

from collections.abc import Callable

import jax.numpy as jnp

from ..tpu.chip import Chip
from ..tpu.columns import even_chunk
from ..tpu.registers import LANES, SUBLANES, packed_rows
from .config import Blocks
from .geometry import Geometry
from .minimal import ALGORITHMS

# A block of one tensor should be long enough that its DMA's latency does not
# show, and short enough that the first of them is soon there. Forward on v5e:
# 7x7x1152 5x5, 64 images: 16 a step 59.5 us, 32 48.9, 64 46.2; 56x56x144 3x3:
# 14 rows a step 318 us, 28 318, 56 331.
_LEAST_BLOCK_BYTES = 700_000
_MOST_BLOCK_BYTES = 7_000_000


def choose_blocks(
  g: Geometry,
  dtype: jnp.dtype,
  chip: Chip,
  *,
  columns: int,
  vmem_bytes: Callable[[Geometry, jnp.dtype], int],
) -> Blocks:
  """Block sizes that were fast on the layers of B0 to B7 and fit in VMEM.

  Args:
    g: The call; its own blocks are not used.
    dtype: Of x.
    chip: What it is for.
    columns: About how many columns to convolve at a time.
    vmem_bytes: What a kernel takes with the blocks of a geometry.

  Raises:
    NotImplementedError: not even one row of 8 images fits.
  """
  packed = packed_rows(dtype) if chip.vector_registers > 32 else SUBLANES
  cells = -(-g.cols.size // g.cols.stride)

  pairs = (
    g.channels_in_lanes
    and chip.unpacks_in_memory
    and dtype == jnp.bfloat16
    and min(cells, columns) > 1
  )
  minimal = (
    chip.vector_registers > 32
    and dtype == jnp.bfloat16
    and g.rows.stride == 1
    and g.cols.kernel in ALGORITHMS
  )

  def blocks(rows: int, sublanes: int) -> Blocks:
    return Blocks(
      rows=rows,
      sublanes=sublanes,
      packed=packed,
      columns=max(even_chunk(cells, columns), 1 + pairs),
      filled=max(even_chunk(g.cols.size, 28), 1 + pairs),
      pairs=pairs,
      minimal=minimal,
    )

  def block_bytes(b: Blocks) -> int:
    rows = min(b.rows * g.rows.stride, g.rows.size)
    return rows * g.cols.size * b.sublanes * LANES * jnp.dtype(dtype).itemsize

  def fits(b: Blocks) -> bool:
    taken = vmem_bytes(g._replace(blocks=b), dtype)
    return block_bytes(b) <= _MOST_BLOCK_BYTES and taken <= chip.vmem_bytes

  for pieces in range(1, g.rows.out + 1):
    chosen = blocks(-(-g.rows.out // pieces), packed)
    if fits(chosen):
      break
  else:
    raise NotImplementedError(
      f"depthwise_conv_bn: a row of {g.cols.size} columns and {packed} images "
      f"takes {vmem_bytes(g._replace(blocks=chosen), dtype):,} bytes of VMEM; "
      f"{chip.name} has {chip.vmem_bytes:,}"
    )
  if pairs:  # more images a step take v3 a DMA for each pixel
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
