"""Settings of a call, and the types that all implementations share."""

from typing import NamedTuple

import jax

from ..common.activation import Activation
from ..common.layout import Layout
from ..common.moments import Moments
from ..selection.selection import Selection
from .window import Padding, Window, padding_of_axes, window

Results = tuple[jax.Array, Moments | None]
Residuals = tuple[
  jax.Array,  # x
  jax.Array,  # filters
  jax.Array | None,  # scale
  jax.Array | None,  # offset
  jax.Array | None,  # y, None without moments
  Moments | None,
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
  moments: bool = True

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
    rows, cols = (
      window(size, taps, stride, padding, dilation)
      for size, taps, stride, padding, dilation in zip(
        x.shape[:2],
        filters.shape[:2],
        self.strides,
        padding_of_axes(self.padding),
        self.dilations,
        strict=True,
      )
    )
    return rows, cols


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
