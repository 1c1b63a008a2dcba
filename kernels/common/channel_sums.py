"""Per-channel sums of elementwise expressions."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .layout import Layout, batch_axis, sum_axes

# Blocks that are added elementwise on CPUs. The filter gradient of
# [16, 16, 64, 144] 3x3 took 5.3 ms on two cores with 16 blocks, 5.8 ms with 8,
# 5.8 ms with 32 at twice the compile time, and 36 ms with jnp.sum.
_CPU_BLOCKS = 16
# Rows from which on they are cut into blocks, and not the batch. Forward and
# backward of [124, 124, 1, 256] 3x3 took 40 ms with blocks of rows and 76 ms
# with the batch, [28, 28, 8, 240] 5x5 12 and 21 ms, [14, 14, 64, 480] 3x3 61
# and 71 ms; [7, 7, 8, 1152] 3x3 3.8 and 1.8 ms.
_LEAST_ROWS = 14

Terms = Callable[..., tuple[jax.Array, ...]]


class Rows(NamedTuple):
  """Rows of an array that one row of the terms reads.

  Attributes:
    stride: Rows of the array from one row of the terms to the next.
    extent: Rows that one row of the terms reads.
  """

  stride: int = 1
  extent: int = 1

  def cut(self, x: jax.Array, start: int, stop: int, axis: int) -> jax.Array:
    """Select what rows `start` to `stop` of the terms read, along an axis."""
    first, last = start * self.stride, (stop - 1) * self.stride
    return lax.slice_in_dim(x, first, last + self.extent, axis=axis)


def channel_sums(
  terms: Terms,
  *arrays: jax.Array,
  layout: Layout,
  rows: Sequence[Rows] | None = None,
) -> tuple[jax.Array, ...]:
  """Sum elementwise expressions over all axes but the channels.

  Equivalent to `tuple(t.sum(axis=(0, 1, 2)) for t in terms(*arrays))` in HWNC,
  but fast on CPUs too.

  Args:
    terms: Function from the arrays to a tuple of float32 arrays of `layout`,
      also from a few rows or images to the same part of its results.
    *arrays: Activations of `layout` with the same batch size.
    layout: Order of the axes, 'HWNC' or 'HWCN'.
    rows: Rows of each array that a row of the terms reads; None if all arrays
      have the rows of the terms.

  Returns:
    Sums, a tuple of float32 `[c]`.
  """
  rows = rows or [Rows()] * len(arrays)
  return lax.platform_dependent(
    *arrays,
    cpu=lambda *a: _blocked_sums(terms, a, layout, rows),
    default=lambda *a: _sums(terms(*a), layout),
  )


def _sums(terms, layout):
  return tuple(jnp.sum(t, axis=sum_axes(layout)) for t in terms)


def _blocked_sums(terms, arrays, layout, rows):
  """Sum on a CPU.

  XLA:CPU vectorizes an elementwise expression and a reduction, but not a fusion
  of both. So this cuts the rows, or the batch of small images, into blocks,
  adds the blocks elementwise, and reduces the small result. Barriers keep XLA
  from fusing the three steps again, and from computing the arrays once for each
  block. A batch that is split over devices is better not cut.
  """
  arrays = lax.optimization_barrier(arrays)
  axis, batch = 0, batch_axis(layout)
  count = (arrays[0].shape[0] - rows[0].extent) // rows[0].stride + 1
  if isinstance(arrays[0].shape[batch], int) and count < min(
    _LEAST_ROWS, arrays[0].shape[batch]
  ):
    axis, count, rows = batch, arrays[0].shape[batch], [Rows()] * len(arrays)
  size = -(-count // _CPU_BLOCKS)
  blocks = count // size

  def terms_of(start, stop):
    return terms(
      *(r.cut(a, start, stop, axis) for r, a in zip(rows, arrays, strict=True))
    )

  starts = range(0, blocks * size, size)
  of_blocks = [terms_of(start, start + size) for start in starts]
  partial = [sum(t[1:], t[0]) for t in zip(*of_blocks, strict=True)]
  sums = _sums(lax.optimization_barrier(partial), layout)
  if blocks * size < count:
    rest = _sums(terms_of(blocks * size, count), layout)
    sums = tuple(s + r for s, r in zip(sums, rest, strict=True))
  return sums
