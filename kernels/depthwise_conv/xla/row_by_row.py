"""Large filters: a loop over their rows, in which the columns are shifted.

XLA:CPU stops fusing at some number of taps, and its compile time grows with
them: on two cores, [14, 14, 8, 64] by 13x13 took 47 ms forward as one
expression of 169 taps, and takes 0.9 ms row by row.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from ...common.channel_sums import Rows, channel_sums
from ...common.layout import Layout
from ..window import Window

Convolve = Callable[..., jax.Array]
Products = Callable[..., tuple[jax.Array, ...]]


def convolve(
  one_row: Convolve,
  z: jax.Array,
  filters: jax.Array,
  rows: Window,
  cols: Window,
  layout: Layout,
) -> jax.Array:
  """Convolve padded z by a loop over the rows of the filters, to float32.

  Args:
    one_row: Function that convolves by filters of one row.
    z: Padded input.
    filters: Filters, `[kh, kw, c]`.
    rows: Window over the rows.
    cols: Window over the columns.
    layout: Order of the axes of z.
  """
  single = rows._replace(kernel_size=1)

  def add_row(i, sums):
    own = lax.dynamic_index_in_dim(filters, i)
    return sums + one_row(_rows_of(z, i, rows), own, single, cols, layout)

  like = jax.eval_shape(
    lambda: one_row(_rows_of(z, 0, rows), filters[:1], single, cols, layout)
  )
  start = jnp.zeros_like(z, jnp.float32, shape=like.shape)
  return lax.fori_loop(0, rows.kernel_size, add_row, start)


def filter_gradient(
  products: Products,
  z: jax.Array,
  dy: jax.Array,
  rows: Window,
  cols: Window,
  layout: Layout,
) -> jax.Array:
  """Sum the products of each tap's inputs and dy, float32 `[kh, kw, c]`.

  Args:
    products: Function of z, dy and the windows to the products of each tap.
    z: Padded input.
    dy: Cotangent of the result.
    rows: Window over the rows.
    cols: Window over the columns.
    layout: Order of the axes of z and dy.
  """
  single = rows._replace(kernel_size=1)

  def of_row(i):
    sums = channel_sums(
      lambda z, dy: products(z, dy, single, cols),
      *(_rows_of(z, i, rows), dy),
      layout=layout,
      rows=(Rows(rows.stride), Rows()),
    )
    return jnp.stack(sums)

  return lax.map(of_row, jnp.arange(rows.kernel_size))


def input_gradient(
  one_row: Convolve,
  dy: jax.Array,
  filters: jax.Array,
  rows: Window,
  cols: Window,
  layout: Layout,
) -> jax.Array:
  """Compute dz, float32, without the padding.

  This convolves dy, with zeros between its values for a stride, by the filters
  turned by half a turn.
  """
  borders = [_spread(rows), _spread(cols), (0, 0, 0), (0, 0, 0)]
  dy = lax.pad(dy, jnp.zeros((), dy.dtype), borders)
  rows, cols = (x._replace(out=x.size, stride=1) for x in (rows, cols))
  return convolve(one_row, dy, filters[::-1, ::-1], rows, cols, layout)


def _spread(axis: Window) -> tuple[int, int, int]:
  """Return the zeros before dy, after it, and between two values of it."""
  low = axis.extent - 1 - axis.low
  length = (axis.out - 1) * axis.stride + 1
  return low, axis.size + axis.extent - 1 - length - low, axis.stride - 1


def _rows_of(z, i, rows: Window):
  """Select the rows of padded z that row i of the filters reads."""
  length = (rows.out - 1) * rows.stride + 1
  return lax.dynamic_slice_in_dim(z, i * rows.dilation, length, axis=0)
