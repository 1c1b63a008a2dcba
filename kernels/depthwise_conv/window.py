"""Sizes and padding of a two-dimensional convolution."""

from typing import Literal, NamedTuple

Padding = (
  Literal["SAME", "VALID"] | int | tuple[tuple[int, int], tuple[int, int]]
)
"""Padding of an image with zeros.

'SAME' (as TensorFlow: less before than after), 'VALID' (none), the zeros on all
four sides (as PyTorch), or ((top, bottom), (left, right)).
"""

AxisPadding = Literal["SAME", "VALID"] | tuple[int, int]
"""Padding of one dimension: a rule, or the zeros before and after."""


class Window(NamedTuple):
  """One spatial dimension of a convolution, in elements.

  Attributes:
    size: Input size.
    out: Output size.
    low: Zeros before the input.
    high: Zeros after the input; negative if no output reads the last inputs.
    kernel_size: Taps of the filter.
    stride: Inputs from one output to the next.
    dilation: Inputs from one tap to the next.
  """

  size: int
  out: int
  low: int
  high: int
  kernel_size: int
  stride: int
  dilation: int = 1

  @property
  def extent(self) -> int:
    """Inputs from the first tap to the last, both included."""
    return (self.kernel_size - 1) * self.dilation + 1


def window(
  size: int,
  kernel_size: int,
  stride: int,
  padding: AxisPadding,
  dilation: int = 1,
) -> Window:
  """Compute sizes and padding of one dimension.

  Args:
    size: Input size.
    kernel_size: Taps of the filter.
    stride: Inputs from one output to the next.
    padding: 'SAME', 'VALID', or the zeros before and after.
    dilation: Inputs from one tap to the next.

  Returns:
    The window; `out` is not positive if the input is too small.

  >>> window(224, 3, 2, "SAME")
  Window(size=224, out=112, low=0, high=1, kernel_size=3, stride=2, dilation=1)
  >>> window(224, 3, 2, (1, 1)).low
  1
  """
  extent = (kernel_size - 1) * dilation + 1
  if padding == "SAME":
    out = -(-size // stride)
    low = max((out - 1) * stride + extent - size, 0) // 2
  else:
    low, high = (0, 0) if padding == "VALID" else padding
    out = (low + size + high - extent) // stride + 1
  high = (out - 1) * stride + extent - size - low
  return Window(size, out, low, high, kernel_size, stride, dilation)


def padding_of_axes(padding: Padding) -> tuple[AxisPadding, AxisPadding]:
  """Return the padding of the rows and of the columns.

  >>> padding_of_axes(1), padding_of_axes("SAME")
  (((1, 1), (1, 1)), ('SAME', 'SAME'))
  """
  if isinstance(padding, str):
    return padding, padding
  if isinstance(padding, int):
    return (padding, padding), (padding, padding)
  return padding
