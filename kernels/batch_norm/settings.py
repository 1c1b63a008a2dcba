"""Settings of a batch norm that are known in tracing."""

from typing import NamedTuple

from ..common.activation import Activation
from ..common.layout import Layout


class Settings(NamedTuple):
  """Settings of a call.

  Attributes:
    activation: One of `Activation`.
    pool: True to return the spatial mean as well.
    layout: Order of the axes, 'HWNC' or 'HWCN'.
  """

  activation: Activation
  pool: bool
  layout: Layout
