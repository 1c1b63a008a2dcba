"""Choice of the blocks that recompute their expansion in the backward pass.

A block keeps the raw results of its convolutions. The result of the expansion
is half of that, and one matmul recomputes it from the block's input.
"""

from collections.abc import Sequence

from ..kernels.surface import target_chip
from .bands import Sizes, padded
from .spec import BlockSpec

# Share of HBM that a step may take.
_HBM_SHARE = 0.95
# Arrays as large as the largest expansion that the backward pass holds at a
# time, in addition to the kept results: 1.3 to 2.8 in compiled steps (B0 on
# v5e, B2 and B5 on v3, bench/results/step.md).
_TEMPORARIES = 3
# Bytes of VMEM to leave to the depthwise convolution's backward pass, while
# XLA recomputes an expansion in VMEM. In steps on 256 chips the peak fell by an
# eighth; v6e was as fast, v5e up to 1.2 % slower (bench/results/step.md). v3
# and v4 have less VMEM than this, v5p hardly more.
_KERNEL_VMEM = 60e6
# Bytes of a weight: gathered weight and its gradient; the rest is sharded.
_WEIGHT_BYTES = 8


def choose_remat(
  sizes: Sizes, blocks: Sequence[BlockSpec], bands: Sequence[int]
) -> list[bool]:
  """Choose the blocks that recompute their expansion in the backward pass.

  These are the blocks whose expansion fits in VMEM. If the rest exceeds the
  HBM of the target TPU, larger expansions follow, the largest first, until it
  fits. Without a TPU target no block recomputes.

  Args:
    sizes: Sizes of the first block's input.
    blocks: Blocks in order.
    bands: Number of bands of each block.

  Returns:
    True for each block that recomputes its expansion.
  """
  limit = bytes_to_keep(sizes, blocks, bands)
  if limit is None:
    return [False] * len(blocks)
  kept = bytes_kept(sizes, blocks, bands)
  vmem = max(target_chip().vmem_bytes - _KERNEL_VMEM, 0)
  chosen = [0 < expansion <= vmem for expansion, _ in kept]
  larger = {i: size for i, (size, _) in enumerate(kept) if size > vmem}
  total = sum(larger.values()) + sum(rest for _, rest in kept)
  for i in sorted(larger, key=larger.__getitem__, reverse=True):
    if total <= limit:
      break
    chosen[i] = True
    total -= larger[i]
  return chosen


def bytes_to_keep(
  sizes: Sizes, blocks: Sequence[BlockSpec], bands: Sequence[int]
) -> float | None:
  """Estimate the bytes of HBM that all blocks together may keep.

  Args:
    sizes: Sizes of the first block's input.
    blocks: Blocks in order.
    bands: Number of bands of each block.

  Returns:
    Bytes, negative if nothing fits; None without a TPU target.
  """
  hbm = target_chip().hbm_bytes
  if hbm is None:
    return None
  widest, weights = 0.0, 0
  for block, count in zip(blocks, bands, strict=True):
    widest = max(widest, padded(sizes, block.expanded, count))
    weights += block.expanded * (
      block.in_filters
      + block.kernel_size**2
      + 2 * block.squeezed
      + block.out_filters
    )
    sizes = sizes.strided(block.stride)
  temporaries = _TEMPORARIES * widest * sizes.batch * sizes.dtype.itemsize
  return _HBM_SHARE * hbm - temporaries - _WEIGHT_BYTES * weights


def bytes_kept(
  sizes: Sizes, blocks: Sequence[BlockSpec], bands: Sequence[int]
) -> list[tuple[float, float]]:
  """Count the bytes of each block's expansion, and of all else that it keeps.

  The counts include empty lanes, as in a TPU's memory. The input of the first
  block counts towards that block.

  Args:
    sizes: Sizes of the first block's input.
    blocks: Blocks in order.
    bands: Number of bands of each block.

  Returns:
    `(expansion, rest)` of each block, in bytes.
  """
  kept = []
  for i, (block, count) in enumerate(zip(blocks, bands, strict=True)):
    out = sizes.strided(block.stride)
    expansion = padded(sizes, block.expanded, count)
    rest = padded(out, block.expanded, count)
    # The projection, and its sum with the shortcut.
    rest += 2 * padded(out, block.out_filters, count)
    if i == 0:
      rest += padded(sizes, block.in_filters, count)
    if block.expanded == block.in_filters:
      expansion = 0
    size = sizes.batch * sizes.dtype.itemsize
    kept.append((size * expansion, size * rest))
    sizes = out
  return kept
