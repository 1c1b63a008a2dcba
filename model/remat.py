"""Which expansions are computed again in the backward pass, not kept for it.

What a block keeps are the raw results of its convolutions. That of the
expansion is half of it, and is one product of what is kept anyway.
"""

from collections.abc import Sequence

from ..kernels.surface import target_chip
from .bands import Sizes, padded
from .spec import BlockSpec

# Of HBM, what a step may take.
_SHARE = 0.95
# Arrays as large as the largest expansion that the backward pass has at a time,
# beside what is kept: 1.3 to 2.8 in the steps that were compiled (B0 on v5e, B2
# and B5 on v3, bench/results/step.md).
_AT_A_TIME = 3
# Of VMEM, what an expansion leaves to the depthwise convolution's backward
# pass, for which XLA makes it again there. In steps of 256 chips the peak fell
# by an eighth; v6e was as fast, v5e up to 1.2 % slower (bench/results/step.md).
# v3 and v4 do not have that much, v5p hardly more.
_FOR_KERNELS = 60e6
# Bytes of a weight: itself, gathered, and its gradient; the rest is sharded.
_WEIGHT = 8


def choose_remat(
  sizes: Sizes, blocks: Sequence[BlockSpec], bands: Sequence[int]
) -> list[bool]:
  """For each block whether to compute its expansion again.

  Those that VMEM holds meanwhile, and of the others as few as it takes to fit
  the memory of the TPU that is compiled for, the largest first; none elsewhere.

  Args:
    sizes: Of what enters the first block.
    blocks: In order.
    bands: Of each block.
  """
  limit = bytes_to_keep(sizes, blocks, bands)
  if limit is None:
    return [False] * len(blocks)
  kept = bytes_kept(sizes, blocks, bands)
  in_vmem = max(target_chip().vmem_bytes - _FOR_KERNELS, 0)
  chosen = [0 < expansion <= in_vmem for expansion, _ in kept]
  larger = {i: size for i, (size, _) in enumerate(kept) if size > in_vmem}
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
  """What all blocks together may keep: an estimate.

  Args:
    sizes: Of what enters the first block.
    blocks: In order.
    bands: Of each block.

  Returns:
    Bytes, below 0 where nothing fits; None where no TPU is compiled for.
  """
  hbm = target_chip().hbm_bytes
  if hbm is None:
    return None
  widest, weights = 0.0, 0
  for block, count in zip(blocks, bands, strict=True):
    widest = max(widest, padded(sizes, block.expanded, count))
    weights += block.expanded * (
      block.in_filters
      + block.kernel**2
      + 2 * block.squeezed
      + block.out_filters
    )
    sizes = sizes.strided(block.stride)
  at_a_time = _AT_A_TIME * widest * sizes.batch * sizes.dtype.itemsize
  return _SHARE * hbm - at_a_time - _WEIGHT * weights


def bytes_kept(
  sizes: Sizes, blocks: Sequence[BlockSpec], bands: Sequence[int]
) -> list[tuple[float, float]]:
  """Bytes of each block's expansion, and of all else that it keeps.

  With the lanes that are left empty: what they take in a TPU's memory. What
  enters the first block counts as the first block's.

  Args:
    sizes: Of what enters the first block.
    blocks: In order.
    bands: Of each block.
  """
  kept = []
  for i, (block, count) in enumerate(zip(blocks, bands, strict=True)):
    behind = sizes.strided(block.stride)
    expansion = padded(sizes, block.expanded, count)
    rest = padded(behind, block.expanded, count)
    # The projection, and its sum with the shortcut.
    rest += 2 * padded(behind, block.out_filters, count)
    if i == 0:
      rest += padded(sizes, block.in_filters, count)
    if block.expanded == block.in_filters:
      expansion = 0
    size = sizes.batch * sizes.dtype.itemsize
    kept.append((size * expansion, size * rest))
    sizes = behind
  return kept
