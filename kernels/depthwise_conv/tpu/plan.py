"""Plan of a call: whether the kernels can run it, and their block sizes."""

from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ...common.layout import batch_axis, channel_axis
from ...tpu.chip import Chip, target_chip
from ..settings import Settings
from ..window import Window
from . import backward, forward
from .blocks import Blocks
from .geometry import Geometry
from .heuristics import Direction, choose_blocks

_KERNEL_SIZES = ("3x3", "5x5", "7x7")
_PLACEHOLDER = Blocks(1, 8, 8, 1, 1)


class Plan(NamedTuple):
  """Geometry of both kernels.

  Attributes:
    chip: Generation that the plan is made for.
    forward: Geometry of the forward kernel.
    backward: Geometry of the backward kernel.
  """

  chip: Chip
  forward: Geometry
  backward: Geometry


def make_plan(x: jax.Array, filters: jax.Array, settings: Settings) -> Plan:
  """Choose the block sizes of a call.

  Raises:
    NotImplementedError: The kernels do not support the call.
  """
  rows, cols = settings.windows(x, filters)
  _check_supported(x, rows, cols, settings)
  chip, layout = target_chip(), settings.layout
  g = Geometry(
    rows,
    cols,
    x.shape[batch_axis(layout)],
    x.shape[channel_axis(layout)],
    layout,
    _PLACEHOLDER,
    settings.activation,
    chip.tiles_vectors_by_128,
    settings.bands,
    settings.moments,
  )

  def with_blocks(direction: Direction, kernel: ModuleType) -> Geometry:
    vmem_bytes = kernel.vmem_bytes
    return g._replace(
      blocks=choose_blocks(g, x.dtype, chip, direction, vmem_bytes)
    )

  return Plan(
    chip, with_blocks("forward", forward), with_blocks("backward", backward)
  )


def _check_supported(
  x: jax.Array, rows: Window, cols: Window, settings: Settings
) -> None:
  """Raise NotImplementedError unless the kernels support the call."""
  size = f"{rows.kernel_size}x{cols.kernel_size}"
  if size not in _KERNEL_SIZES:
    _unsupported(x, f"{size} filters", "3x3, 5x5 or 7x7 filters")
  if rows.stride != cols.stride:
    _unsupported(x, f"strides {settings.strides}", "one stride for both")
  if settings.dilations != (1, 1):
    _unsupported(x, f"dilation {settings.dilation}", "dilation 1")
  # Blocks of inputs have to meet those of outputs, one to one.
  if any(axis.out != -(-axis.size // axis.stride) for axis in (rows, cols)):
    _unsupported(
      x,
      f"padding {settings.padding!r}",
      "padding by which y has ceil(h / stride) rows, such as 'SAME' or k // 2",
    )
  if x.dtype not in (jnp.bfloat16, jnp.float32):
    _unsupported(x, f"{x.dtype}", "bfloat16 or float32")


def _unsupported(x: jax.Array, given: str, supported: str) -> None:
  raise NotImplementedError(
    f"depthwise_conv_bn: pallas_tpu does not support {given} for x of shape "
    f"{x.shape} and dtype {x.dtype}; use {supported}, or implementation='xla'"
  )
