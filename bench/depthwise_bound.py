"""Lower bound of the time that a depthwise layer takes on a TPU."""

from typing import Any

from ..kernels.surface import ALGORITHMS, Layout
from .chips import CHIPS
from .layers import DepthwiseShape

# Vector operations besides the multiply-adds, for a register of 8 by 128
# values. Forward, for each register of x: unpack, scale, offset, and
# u * (1 + tanh(u)); of y: shift, square, two sums, half a pack.
_FORWARD_OF_X, _FORWARD_OF_Y = 5, 4.5
# Backward, for each register of y: unpack y and dy, slope * y + (dy +
# constant); of x: unpack, activation and slope, slope * dz, two sums, scale,
# half a pack.
_BACKWARD_OF_Y, _BACKWARD_OF_X = 5, 13.5


def bound_us(
  shape: DepthwiseShape, batch_size: int, chip: str, layout: Layout
) -> float:
  """Compute a lower bound of the kernels' time, forward and backward.

  Each direction takes at least the larger of two times: moving every tensor
  once through HBM, with lanes padded to 128 and sublanes to 8; and issuing the
  vector operations in all vector slots. The operations are those of shifted
  multiply-adds or of Winograd's algorithm, whichever has fewer.

  Args:
    shape: Layer.
    batch_size: Images on the core.
    chip: One of `CHIPS`.
    layout: "HWNC" (channels in the lanes) or "HWCN" (images in the lanes).

  Returns:
    Microseconds.
  """
  size, channels, kernel_size, stride = shape
  spec = CHIPS[chip]
  minor = (batch_size, channels) if layout == "HWNC" else (channels, batch_size)
  registers = padded(minor[0], 8) * padded(minor[1], 128) / 1024
  x = size**2 * registers
  y = (-(-size // stride)) ** 2 * registers
  forward, backward = _multiply_adds(kernel_size, stride)
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


def padded(size: int, multiple: int) -> int:
  """Round a size up to a multiple.

  >>> padded(130, 128)
  256
  """
  return -(-size // multiple) * multiple


def _multiply_adds(kernel_size: int, stride: int) -> tuple[float, float]:
  """Count operations for one output register, forward and backward."""
  shifted = 2 * kernel_size**2 - 1, 4 * kernel_size**2 - 1
  if stride != 1 or kernel_size not in ALGORITHMS:
    return shifted
  a = ALGORITHMS[kernel_size]
  data = _operations(a.input_transform, a.points)
  data += a.points * (2 * kernel_size - 1)
  data += _operations(a.output_transform, a.points)
  filters = _operations(a.output_transposed, a.outputs)
  filters += a.points * 2 * kernel_size
  winograd = data / a.outputs, (data + filters) / a.outputs
  return min(shifted[0], winograd[0]), min(shifted[1], winograd[1])


class _Counted:
  """Value that counts the operations on it."""

  count = 0

  def _operate(self, _: Any = None) -> "_Counted":
    _Counted.count += 1
    return self

  __add__ = __sub__ = __rmul__ = __neg__ = _operate


def _operations(transform: Any, inputs: int) -> int:
  """Count the operations of a transform of so many inputs."""
  before = _Counted.count
  transform([_Counted() for _ in range(inputs)])
  return _Counted.count - before
