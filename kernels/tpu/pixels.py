"""Kernels that go over an image's pixels, some at a time, of all images.

`[h, w, n, c]` is `[h * w, n, c]` to them. Pixels are matrices' rows in what
they multiply, so the images have to fill registers.
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

# Of VMEM, what a kernel plans with: XLA keeps arrays in the rest. v5e,
# 13x65x64 of 120 to 720 channels, 13 pixels a step (8 MB) 180 us, 65 154.
_MOST_BYTES = 24 * 2**20
_ROWS = 16  # of a bfloat16 register

Channels = tuple[int, DTypeLike]


class Plan(NamedTuple):
  """How many pixels a step takes.

  Attributes:
    chip: That is compiled for.
    pixels: Of a step.
    steps: Of the kernel.
    images: In the batch.
  """

  chip: Chip
  pixels: int
  steps: int
  images: int

  @property
  def vmem_limit_bytes(self) -> int:
    """What the compiler may take."""
    return 3 * _budget(self.chip) // 2

  def shape(self, x: jax.Array) -> tuple[int, ...]:
    """Of `x` to the kernel."""
    return (self.pixels * self.steps, *x.shape[2:])

  def block(self, channels: int) -> pl.BlockSpec:
    """Of a step; the grid's second axis counts them."""
    shape = (self.pixels, self.images, channels)
    return pl.BlockSpec(shape, lambda _, i: (i, 0, 0))

  def streamed(self, x: jax.Array) -> Operand:
    """`[h, w, n, c]`, a step's part at a time."""
    return x.reshape(self.shape(x)), self.block(x.shape[3])


def whole(x: jax.Array) -> Operand:
  """The same in each step."""
  return x, pl.BlockSpec(x.shape, lambda *_: (0,) * x.ndim)


def sums(shape: tuple[int, int]) -> Result:
  """Float32 that all steps add to."""
  return shape, jnp.float32, pl.BlockSpec(shape, lambda *_: (0, 0))


def plan_pixels(
  op: str,
  x: jax.Array,
  *,
  streamed: Sequence[Channels],
  made: Sequence[Channels],
  kept: Sequence[tuple[int, int, DTypeLike]],
) -> Plan:
  """As many pixels as VMEM holds.

  Args:
    op: For messages.
    x: `[h, w, n, c]`, bfloat16 or float32.
    streamed: Channels and dtype of each array that is fetched or written.
    made: Of each that a step makes on its way.
    kept: Shape and dtype of each matrix that is there in all steps.

  Raises:
    NotImplementedError: it cannot be done.
  """
  h, w, images, _ = x.shape
  chip = target_chip()
  if x.dtype not in (jnp.bfloat16, jnp.float32):
    _cannot(op, x, f"{x.dtype}, but bfloat16 and float32")
  if images % _ROWS:
    _cannot(op, x, f"{images} images, but multiples of {_ROWS}")
  if chip.name in ("v2", "v3"):
    _cannot(op, x, f"products in bfloat16 on {chip.name}, but since v4")
  of_pixel = images * sum(
    times * _row(channels, dtype)
    for times, arrays in ((2, streamed), (1, made))
    for channels, dtype in arrays
  )
  fixed = sum(rows * _row(columns, dtype) for rows, columns, dtype in kept)
  most = (_budget(chip) - fixed) // of_pixel
  if most < 1:
    _cannot(
      op, x, f"room in VMEM: {fixed + of_pixel:,} of {_budget(chip):,} bytes"
    )
  pixels = max(p for p in _divisors(h * w) if p <= most)
  return Plan(chip, pixels, h * w // pixels, images)


def sum_products(a: jax.Array, b: jax.Array) -> jax.Array:
  """`a' b` in float32, of matrices in VMEM."""
  return lax.dot_general(
    a, b, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
  )


def _budget(chip: Chip) -> int:
  return min(_MOST_BYTES, chip.vmem_bytes // 2)


def _row(channels: int, dtype: DTypeLike) -> int:
  return -(-channels // LANES) * LANES * jnp.dtype(dtype).itemsize


def _divisors(size: int) -> list[int]:
  below = [d for d in range(1, math.isqrt(size) + 1) if size % d == 0]
  return [*below, *(size // d for d in below)]


def _cannot(op: str, x: jax.Array, what: str) -> None:
  raise NotImplementedError(
    f"{op}: pallas_tpu has no {what} (x is {x.dtype} of shape {x.shape})"
  )
