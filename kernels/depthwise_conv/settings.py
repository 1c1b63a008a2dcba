"""Settings of a call, and the types that all implementations share."""

from typing import NamedTuple

import jax

from ..common.activation import Activation
from ..common.layout import Layout
from ..common.moments import Moments
from ..selection.selection import Selection
from .window import Padding, Window, window

Results = tuple[jax.Array, Moments]
Residuals = tuple[
  jax.Array,  # x
  jax.Array,  # filters
  jax.Array | None,  # scale
  jax.Array | None,  # offset
  jax.Array,  # y
  Moments,
]
Gradients = tuple[jax.Array, jax.Array, jax.Array | None, jax.Array | None]


class Settings(NamedTuple):
  """Static arguments of `podscale.kernels.depthwise_conv_bn`."""

  activation: Activation
  stride: int | tuple[int, int]
  padding: Padding
  layout: Layout
  bands: int = 1
  dilation: int | tuple[int, int] = 1

  @property
  def strides(self) -> tuple[int, int]:
    """Strides over rows and columns."""
    return _pair(self.stride)

  @property
  def dilations(self) -> tuple[int, int]:
    """Dilations over rows and columns."""
    return _pair(self.dilation)

  def windows(self, x: jax.Array, filters: jax.Array) -> tuple[Window, Window]:
    """Compute the windows over the rows and columns of an image."""
    rows, cols = self.padding, self.padding
    if isinstance(self.padding, int):
      rows = cols = (self.padding, self.padding)
    elif isinstance(self.padding, tuple):
      rows, cols = self.padding
    return (
      window(
        x.shape[0],
        filters.shape[0],
        self.strides[0],
        rows,
        self.dilations[0],
      ),
      window(
        x.shape[1],
        filters.shape[1],
        self.strides[1],
        cols,
        self.dilations[1],
      ),
    )


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
  return (value, value) if isinstance(value, int) else value


class Call(NamedTuple):
  """Settings of a call and the implementations that run it.

  Attributes:
    settings: Settings of the public op.
    selection: Implementations, with a `tpu.plan.Plan` where the kernels run.
  """

  settings: Settings
  selection: Selection
