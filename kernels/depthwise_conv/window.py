"""Sizes and padding of a two-dimensional convolution."""

from typing import Literal, NamedTuple

Padding = Literal["SAME", "VALID"]


class Window(NamedTuple):
  """One spatial dimension of a convolution, in elements.

  Attributes:
    size: Of the input.
    out: Of the output.
    low: Zeros before the input.
    high: Zeros after it; negative where the last inputs are never read.
    kernel: Taps.
    stride: Step between outputs.
  """

  size: int
  out: int
  low: int
  high: int
  kernel: int
  stride: int


def window(size: int, kernel: int, stride: int, padding: Padding) -> Window:
  """Sizes as TensorFlow has them: 'SAME' pads low less than high.

  >>> window(224, 3, 2, "SAME")
  Window(size=224, out=112, low=0, high=1, kernel=3, stride=2)
  """
  if padding == "SAME":
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
  else:
    out = (size - kernel) // stride + 1
    total = 0
  low = total // 2
  high = (out - 1) * stride + kernel - size - low
  return Window(size, out, low, high, kernel, stride)
