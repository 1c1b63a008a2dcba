"""Settings of a call, and the types that all implementations share."""

from typing import NamedTuple

import jax

from ..common.activation import Activation
from ..common.layout import Layout
from ..common.moments import Moments
from ..selection.selection import Selection
from .window import Padding

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
  stride: int
  padding: Padding
  layout: Layout
  bands: int = 1


class Call(NamedTuple):
  """Settings of a call and the implementations that run it.

  Attributes:
    settings: Settings of the public op.
    selection: Implementations, with a `tpu.plan.Plan` where the kernels run.
  """

  settings: Settings
  selection: Selection
