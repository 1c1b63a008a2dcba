"""What of a call is known when it is traced, beside the arrays' shapes."""

from typing import NamedTuple

from ..activation import Activation
from ..layout import Layout
from .shapes import Padding


class Settings(NamedTuple):
  """The settings of `podscale.kernels.depthwise_conv_bn`."""

  activation: Activation
  stride: int
  padding: Padding
  layout: Layout
