"""What of a call is known when it is traced, beside the arrays' shapes."""

from typing import Literal, NamedTuple

import jax

from ..common.activation import Activation
from ..common.layout import Layout
from ..common.moments import Moments
from .window import Padding

Form = Literal["taps", "conv", "pallas_tpu"]
"""How it is computed: see the files of these names."""

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
  """The settings of `podscale.kernels.depthwise_conv_bn`."""

  activation: Activation
  stride: int
  padding: Padding
  layout: Layout
  bands: int = 1


class Call(NamedTuple):
  """The settings, and the forms that run.

  Attributes:
    settings: Of the public op.
    on_tpu: The form on a TPU.
    elsewhere: The form on other platforms.
    plan: Block sizes of the kernels, a `pallas_tpu.Plan`, where they may run.
  """

  settings: Settings
  on_tpu: Form
  elsewhere: Form
  plan: tuple | None = None
