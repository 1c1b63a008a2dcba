"""Settings of a call, and the types that all implementations share."""

from typing import Literal, NamedTuple

import jax

from ..common.activation import Activation
from ..common.layout import Layout
from ..common.moments import Moments
from .window import Padding

Implementation = Literal["shifted", "grouped", "pallas_tpu"]
"""Module that computes the op: `xla.shifted`, `xla.grouped` or `tpu`.

The public implementation 'xla' is `grouped` on TPUs and `shifted` elsewhere.
"""

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
  """Settings of a call, and the implementations that run it.

  Attributes:
    settings: Static arguments of the public op.
    on_tpu: Implementation on TPUs.
    elsewhere: Implementation on other platforms.
    plan: `tpu.plan.Plan` of the kernels; None if no kernel may run.
  """

  settings: Settings
  on_tpu: Implementation
  elsewhere: Implementation
  plan: tuple | None = None
