"""Sizes and padding of a two-dimensional convolution."""

from typing import Literal, NamedTuple

Padding = Literal["SAME", "VALID"]


class Window(NamedTuple):
  """One spatial dimension of a convolution, in elements.

  Attributes:
    size: Input size.
    out: Output size.
    low: Zeros before the input.
    high: Zeros after the input; negative if no output reads the last inputs.
    kernel_size: Taps of the filter.
    stride: Inputs from one output to the next.
  """

  size: int
  out: int
  low: int
  high: int
  kernel_size: int
  stride: int


def window(
  size: int, kernel_size: int, stride: int, padding: Padding
) -> Window:
  """Compute sizes and padding as TensorFlow does.

  'SAME' puts the smaller half of the padding before the input.

  >>> window(224, 3, 2, "SAME")
  Window(size=224, out=112, low=0, high=1, kernel_size=3, stride=2)
  """
  if padding == "SAME":
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel_size - size, 0)
  else:
    out = (size - kernel_size) // stride + 1
    total = 0
  low = total // 2
  high = (out - 1) * stride + kernel_size - size - low
  return Window(size, out, low, high, kernel_size, stride)
