"""The least that a depthwise layer can take on a TPU."""

from typing import Any

from ...kernels.surface import ALGORITHMS, Layout
from ..layers import DepthwiseShape
from .static import CHIPS

# Vector operations besides the taps, for a register of 8 by 128 values.
# Forward, of x: unpacked, scale, offset, and u * (1 + tanh(u)); of y: pivot,
# square, two sums, half a pack.
_FORWARD_OF_X, _FORWARD_OF_Y = 5, 4.5
# Backward, of y: y and dy unpacked, slope * y + (dy + constant); of x:
# unpacked, activation and slope, slope * dz, two sums, scale, half a pack.
_BACKWARD_OF_Y, _BACKWARD_OF_X = 5, 13.5


def bound_us(
  shape: DepthwiseShape, batch_size: int, chip: str, layout: Layout
) -> float:
  """The least time of the kernels, forward and backward, in microseconds.

  Of each the larger of two times: every tensor once through HBM, with the
  lanes padded to 128 and the sublanes to 8; and the vector operations, those
  of the form of the taps that has fewer, in all vector slots.
  """
  size, channels, kernel, stride = shape
  spec = CHIPS[chip]
  minor = (batch_size, channels) if layout == "HWNC" else (channels, batch_size)
  registers = padded(minor[0], 8) * padded(minor[1], 128) / 1024
  x = size**2 * registers
  y = (-(-size // stride)) ** 2 * registers
  forward, backward = _taps(kernel, stride)
  operations = (
    _FORWARD_OF_X * x + (_FORWARD_OF_Y + forward) * y,
    _BACKWARD_OF_X * x + (_BACKWARD_OF_Y + backward) * y,
  )
  tensors = x + y, 2 * x + 2 * y
  return sum(
    max(
      count * 2048 / (spec.hbm_gb_per_s * 1e3),
      vector / (spec.vector_slots * spec.mhz),
    )
    for count, vector in zip(tensors, operations, strict=True)
  )


def padded(size: int, to: int) -> int:
  """The next multiple of `to`."""
  return -(-size // to) * to


def _taps(kernel: int, stride: int) -> tuple[float, float]:
  """Operations of all taps for one output, forward and backward."""
  direct = 2 * kernel**2 - 1, 4 * kernel**2 - 1
  if stride != 1 or kernel not in ALGORITHMS:
    return direct
  a = ALGORITHMS[kernel]
  data = _operations(a.input_transform, a.points) + a.points * (2 * kernel - 1)
  data += _operations(a.output_transform, a.points)
  filters = _operations(a.output_transposed, a.outputs)
  filters += a.points * 2 * kernel
  minimal = data / a.outputs, (data + filters) / a.outputs
  return min(direct[0], minimal[0]), min(direct[1], minimal[1])


class _Counted:
  """A value that counts the operations it takes part in."""

  count = 0

  def _operate(self, _: Any = None) -> "_Counted":
    _Counted.count += 1
    return self

  __add__ = __sub__ = __rmul__ = __neg__ = _operate


def _operations(transform: Any, inputs: int) -> int:
  before = _Counted.count
  transform([_Counted() for _ in range(inputs)])
  return _Counted.count - before
