"""The depthwise convolution as k * k shifted multiply-adds, in plain JAX.

XLA fuses the multiply-adds into one loop on every platform. XLA:CPU's grouped
convolution is many times slower.
"""

import jax
import jax.numpy as jnp
from jax import lax

from ...common.channel_sums import Rows, channel_sums
from ...common.layout import per_channel
from ...common.moment_sums import add_moments_cotangent, compute_moments
from ...common.prologue import prologue, prologue_gradient
from ...common.recompute import recompute_from
from ..settings import Call, Gradients, Residuals, Results
from ..window import Window
from . import row_by_row

# Most taps of one expression. On two cores, forward and backward at once and
# row by row: [28, 28, 8, 240] by 5x5 8.6 and 21.7 ms, 7x7 24.8 and 26.6, 9x9
# 46.2 and 50.3; [14, 14, 8, 64] by 9x9 4.9 and 3.0 ms, 13x13 113.9 and 7.8. The
# compile time of 9x9 was 2.2 and 0.5 s, of 13x13 13.7 and 1.7 s.
_MOST_TAPS = 49


def forward(
  x: jax.Array,  # [h, w, n, c] or [h, w, c, n]
  filters: jax.Array,  # [kh, kw, c]
  scale: jax.Array | None,  # [c]
  offset: jax.Array | None,  # [c]
  call: Call,
) -> Results:
  """See `podscale.kernels.depthwise_conv_bn`."""
  settings = call.settings
  rows, cols = settings.windows(x, filters)
  z = _padded_input(x, scale, offset, rows, cols, settings)
  y = _convolve(z, filters, rows, cols, settings.layout)
  moments = compute_moments(y, settings.layout) if settings.moments else None
  return y.astype(x.dtype), moments


def backward(
  residuals: Residuals, cotangents: Results, call: Call
) -> Gradients:
  """Compute the gradients of x, filters, scale and offset, in their dtypes."""
  residuals, cotangents = recompute_from(residuals, cotangents)
  x, filters, scale, offset, y, moments = residuals
  dy, dmoments = cotangents
  settings = call.settings
  layout = settings.layout
  rows, cols = settings.windows(x, filters)
  dy = add_moments_cotangent(dy, dmoments, y, moments, layout)
  # Materialised, because each tap reads dy again; rounded as activations are.
  dy = lax.optimization_barrier(dy.astype(x.dtype))
  z = _padded_input(x, scale, offset, rows, cols, settings)
  dfilters = _filter_gradient(z, dy, rows, cols, layout)
  dz = _input_gradient(dy, filters, rows, cols, layout)
  dx, dscale, doffset = prologue_gradient(
    dz, x, scale, offset, settings.activation, layout
  )
  return dx, dfilters.astype(filters.dtype), dscale, doffset


def _is_large(rows: Window, cols: Window) -> bool:
  return rows.kernel_size * cols.kernel_size > _MOST_TAPS


def _padded_input(x, scale, offset, rows: Window, cols: Window, settings):
  """Materialise the padded input of the taps, in x's dtype."""
  z = prologue(x, scale, offset, settings.activation, settings.layout)
  z = z.astype(x.dtype)
  borders = [(rows.low, rows.high, 0), (cols.low, cols.high, 0)]
  zero = jnp.zeros((), x.dtype)
  return lax.optimization_barrier(
    lax.pad(z, zero, [*borders, (0, 0, 0), (0, 0, 0)])
  )


def _tap(z, i, j, rows: Window, cols: Window):
  """Select the input that tap [i, j] reads for each output, in float32."""
  i, j = i * rows.dilation, j * cols.dilation
  limit = (
    i + (rows.out - 1) * rows.stride + 1,
    j + (cols.out - 1) * cols.stride + 1,
    *z.shape[2:],
  )
  strides = (rows.stride, cols.stride, 1, 1)
  return lax.slice(z, (i, j, 0, 0), limit, strides).astype(jnp.float32)


def _convolve(z, filters, rows, cols, layout):
  """Convolve padded z, to float32."""
  if _is_large(rows, cols):
    return row_by_row.convolve(
      _convolve_at_once, z, filters, rows, cols, layout
    )
  return _convolve_at_once(z, filters, rows, cols, layout)


def _convolve_at_once(z, filters, rows, cols, layout):
  taps = [
    _tap(z, i, j, rows, cols) * _filter_tap(filters, i, j, layout)
    for i in range(rows.kernel_size)
    for j in range(cols.kernel_size)
  ]
  return sum(taps[1:], taps[0])


def _filter_tap(filters, i, j, layout):
  return per_channel(filters[i, j].astype(jnp.float32), layout)


def _filter_gradient(z, dy, rows, cols, layout):
  """Sum the products of each tap's inputs and dy, float32 `[kh, kw, c]`."""
  if _is_large(rows, cols):
    return row_by_row.filter_gradient(_products, z, dy, rows, cols, layout)
  sums = channel_sums(
    lambda z, dy: _products(z, dy, rows, cols),
    *(z, dy),
    layout=layout,
    rows=(Rows(rows.stride, rows.extent), Rows()),
  )
  return jnp.stack(sums).reshape(rows.kernel_size, cols.kernel_size, -1)


def _products(z, dy, rows, cols):
  """Multiply the inputs of each tap by dy, for the rows of dy."""
  dy = dy.astype(jnp.float32)
  here = rows._replace(out=dy.shape[0])
  return tuple(
    _tap(z, i, j, here, cols) * dy
    for i in range(rows.kernel_size)
    for j in range(cols.kernel_size)
  )


def _input_gradient(dy, filters, rows, cols, layout):
  """Compute dz, float32, without the padding.

  Inputs `stride` apart meet the same taps and form one phase. The gradient of a
  phase is a convolution of stride 1 over dy; the phases are interleaved.
  """
  if _is_large(rows, cols):
    return row_by_row.input_gradient(
      _convolve_at_once, dy, filters, rows, cols, layout
    )
  phases = [
    [_phase(dy, filters, rows, cols, p, q, layout) for q in range(cols.stride)]
    for p in range(rows.stride)
  ]
  if rows.stride == cols.stride == 1:
    return phases[0][0]
  dz = jnp.stack([jnp.stack(row, axis=2) for row in phases], axis=1)
  height, width = dz.shape[0] * rows.stride, dz.shape[2] * cols.stride
  dz = dz.reshape(height, width, *dy.shape[2:])
  return dz[: rows.size, : cols.size]


def _phase(dy, filters, rows, cols, p, q, layout):
  """Compute the gradient of rows p, p + stride, ... and columns q, ... ."""
  reads_i, pad_i = _phase_taps(rows, p)
  reads_j, pad_j = _phase_taps(cols, q)
  zero = jnp.zeros((), dy.dtype)
  dy = lax.pad(dy, zero, [pad_i, pad_j, (0, 0, 0), (0, 0, 0)])
  dy = lax.optimization_barrier(dy)
  height = -(-rows.size // rows.stride)
  width = -(-cols.size // cols.stride)
  terms = [
    dy[a : a + height, b : b + width].astype(jnp.float32)
    * _filter_tap(filters, i, j, layout)
    for i, a in reads_i
    for j, b in reads_j
  ]
  if not terms:  # a 1x1 filter with stride 2 skips these inputs
    return jnp.zeros((height, width, *dy.shape[2:]), jnp.float32)
  return sum(terms[1:], terms[0])


def _phase_taps(axis: Window, phase: int):
  """Find the taps that meet one phase of the input, and dy's padding for them.

  Input `stride * m + phase` meets tap i of output a if
  `stride * a + dilation * i = stride * m + phase + low`.

  Returns:
    A list of (tap, start of its slice of the padded dy), and the padding.
  """
  stride = axis.stride
  count = -(-axis.size // stride)
  shifts = [
    (i, (phase + axis.low - axis.dilation * i) // stride)
    for i in range(axis.kernel_size)
    if (phase + axis.low - axis.dilation * i) % stride == 0
  ]
  if not shifts:
    return [], (0, 0, 0)
  low = -min(shift for _, shift in shifts)
  high = count + max(shift for _, shift in shifts) - axis.out
  return [(i, low + shift) for i, shift in shifts], (low, high, 0)
