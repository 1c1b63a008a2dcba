"""Grids of kernels that process some pixels of all images in each step.

Such a kernel views `[h, w, n, c]` as `[h * w, n, c]`. The images of its pixels
are the rows of the matrices that it multiplies, so they have to fill registers.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.typing import DTypeLike

from .chip import Chip, target_chip
from .pallas_call import Operand, Result
from .registers import LANES

# VMEM that a kernel uses at most: XLA keeps arrays in the rest. More than 16 MB
# still saves time (bench/results/step.md: 13x65x64 of 120 and 720 channels).
_MOST_BYTES = 24 * 2**20
_ROWS = 16  # rows of a bfloat16 register

Channels = tuple[int, DTypeLike]


class Plan(NamedTuple):
  """Number of pixels in a grid step.

  Attributes:
    chip: Generation that the plan is made for.
    pixels: Pixels of a step.
    steps: Number of steps.
    images: Batch size.
  """

  chip: Chip
  pixels: int
  steps: int
  images: int

  @property
  def vmem_limit_bytes(self) -> int:
    """VMEM that the compiler may use."""
    return 3 * _budget(self.chip) // 2

  def shape(self, x: jax.Array) -> tuple[int, ...]:
    """Compute the shape of `x` in the kernel, `[h * w, n, c]`."""
    return (self.pixels * self.steps, *x.shape[2:])

  def block(self, channels: int) -> pl.BlockSpec:
    """Make the block of a step, along the second axis of the grid."""
    shape = (self.pixels, self.images, channels)
    return pl.BlockSpec(shape, lambda _, i: (i, 0, 0))

  def streamed(self, x: jax.Array) -> Operand:
    """Make an operand of `[h, w, n, c]` that is read step by step."""
    return x.reshape(self.shape(x)), self.block(x.shape[3])


def whole(x: jax.Array) -> Operand:
  """Make an operand that every step reads whole."""
  return x, pl.BlockSpec(x.shape, lambda *_: (0,) * x.ndim)


def sums(shape: tuple[int, int]) -> Result:
  """Make a float32 result that all steps add to."""
  return shape, jnp.float32, pl.BlockSpec(shape, lambda *_: (0, 0))


def plan_pixels(
  op: str,
  x: jax.Array,
  *,
  streamed: Sequence[Channels],
  made: Sequence[Channels],
  kept: Sequence[tuple[int, int, DTypeLike]],
) -> Plan:
  """Plan steps of as many pixels as fit in VMEM.

  Args:
    op: Name of the op, for messages.
    x: Activation, `[h, w, n, c]`, bfloat16 or float32.
    streamed: Channels and dtype of each array that steps read or write.
    made: Channels and dtype of each intermediate array of a step.
    kept: Shape and dtype of each matrix that stays in VMEM for all steps.

  Raises:
    NotImplementedError: The kernel does not support x on this chip.
  """
  h, w, images, _ = x.shape
  chip = target_chip()
  if x.dtype not in (jnp.bfloat16, jnp.float32):
    _unsupported(op, x, f"{x.dtype}; use bfloat16 or float32")
  if images % _ROWS:
    _unsupported(op, x, f"{images} images; use a multiple of {_ROWS}")
  if chip.name in ("v2", "v3"):
    _unsupported(op, x, f"bfloat16 products on {chip.name}; use v4 or later")
  pixel_bytes = images * sum(
    times * _row_bytes(channels, dtype)
    for times, arrays in ((2, streamed), (1, made))
    for channels, dtype in arrays
  )
  fixed = sum(
    rows * _row_bytes(columns, dtype) for rows, columns, dtype in kept
  )
  most = (_budget(chip) - fixed) // pixel_bytes
  if most < 1:
    _unsupported(
      op,
      x,
      f"a pixel of {fixed + pixel_bytes:,} bytes in VMEM; {chip.name} has "
      f"{_budget(chip):,}",
    )
  pixels = max(p for p in _divisors(h * w) if p <= most)
  return Plan(chip, pixels, h * w // pixels, images)


def sum_products(a: jax.Array, b: jax.Array) -> jax.Array:
  """Multiply matrices in VMEM, `a.T @ b` in float32."""
  return lax.dot_general(
    a, b, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
  )


def _budget(chip: Chip) -> int:
  return min(_MOST_BYTES, chip.vmem_bytes // 2)


def _row_bytes(channels: int, dtype: DTypeLike) -> int:
  return -(-channels // LANES) * LANES * jnp.dtype(dtype).itemsize


def _divisors(size: int) -> list[int]:
  below = [d for d in range(1, math.isqrt(size) + 1) if size % d == 0]
  return [*below, *(size // d for d in below)]


def _unsupported(op: str, x: jax.Array, problem: str) -> None:
  raise NotImplementedError(
    f"{op}: pallas_tpu does not support {problem} (x has shape {x.shape} and "
    f"dtype {x.dtype})"
  )
