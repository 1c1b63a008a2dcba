"""Names of kernels that other parts of podscale use beside the public ops.

`collectives`, `model`, `train` and `bench` import from `podscale.kernels` or
from here; every other module of kernels is private (`make lint` checks it).
"""

from .common.activation import activate
from .common.layout import Layout
from .common.pointwise_matmul import block_diagonal
from .depthwise_conv.tpu.winograd import ALGORITHMS
from .depthwise_conv.window import Padding, Window, window
from .lars.api import lars_steps
from .lars.formula import Variant
from .packed.packing import rows_here
from .selection.requested import Requested
from .tpu.chip import target_chip
from .tpu.registers import LANES

__all__ = [
  "ALGORITHMS",
  "LANES",
  "Layout",
  "Padding",
  "Requested",
  "Variant",
  "Window",
  "activate",
  "block_diagonal",
  "lars_steps",
  "rows_here",
  "target_chip",
  "window",
]
