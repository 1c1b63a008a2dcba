"""The depthwise op on a TPU that is not there, against XLA's own fusions.

Both sides are compiled for the chip and judged by the same interpreter of the
compiled code. All figures are estimates.
"""

import sys
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ... import kernels
from ...kernels.surface import Layout
from ..layers import DepthwiseShape
from ..measured.kernels import plain_convolution, plain_depthwise, plain_moments
from .depthwise_bound import bound_us, padded
from .kernel_rows import kernel_row, longest_first
from .static import Judged, compiler, judge, target


def estimate_depthwise(
  shapes: Iterable[DepthwiseShape], *, batch_size: int, chip: str
) -> list[dict[str, Any]]:
  """Judges forward and backward of depthwise layers, in bfloat16.

  Both sides: the previous batch norm's affine and swish, the convolution and
  the next batch norm's moments; then all gradients, moments' included. XLA
  chooses the layouts of its arguments, the kernels have that of
  `better_layout`.

  Times are of one program, which favours XLA: it keeps what fits in VMEM from
  the forward pass to the backward pass, where in a network the other layers
  come in between. So its bytes are those of two programs.

  Args:
    shapes: The layers.
    batch_size: Images on the core.
    chip: One of `static.CHIPS`.

  Returns:
    A row per layer: the kernels' layout; estimated microseconds of both sides,
    forward alone and together with backward; the ratios; our HBM bytes over
    XLA's; the bound (see `bound_us`) and what fraction of our time it is; what
    `implementation=None` takes; what our side takes to compile, in seconds;
    the kernels whose time is not known, with the reason; and under "programs"
    a `kernel_row` for each fusion and kernel of both sides.

  Raises:
    UsageError: the chip is not known, or libtpu is missing.
  """
  rows = []
  for shape in shapes:  # each takes seconds to minutes
    row = _row(shape, batch_size, chip)
    rows.append(row)
    for note in (f"{shape}: {row['ratio']:.2f} times XLA", *row["failures"]):
      print(note, file=sys.stderr, flush=True)
  return rows


def better_layout(shape: DepthwiseShape, batch_size: int) -> Layout:
  """That which fills more of the 128 lanes, with channels or with images.

  >>> better_layout(DepthwiseShape(112, 32, 3, 1), 64)
  'HWCN'
  """
  channels, images = (
    size / padded(size, 128) for size in (shape.channels, batch_size)
  )
  return "HWCN" if images > channels else "HWNC"


def _row(shape: DepthwiseShape, batch_size: int, chip: str) -> dict[str, Any]:
  layout = better_layout(shape, batch_size)
  xla = partial(judge, chip=chip, free_layouts=True)
  own = partial(judge, chip=chip)
  plain, stride = partial(plain_depthwise, stride=shape.stride), shape.stride
  op = partial(ours, stride=stride, layout=layout)
  forward, both = layer_arguments(shape, batch_size)
  own_forward, own_both = layer_arguments(shape, batch_size, layout)
  results: dict[str, Judged] = {
    "xla_forward": xla(plain, *forward),
    "xla": xla(partial(with_gradients, plain), *both),
    "ours_forward": own(op, *own_forward),
    "ours": own(partial(with_gradients, op), *own_both),
  }
  y = both[4]  # of dy's shape
  xla_backward = xla(partial(_plain_backward, stride=stride), y, *both)
  xla_bytes = results["xla_forward"].hbm_bytes + xla_backward.hbm_bytes
  failures = [
    note
    for result in (*results.values(), xla_backward)
    for note in result.unmodelled
    if "FAILED" in note
    or ("data-dependent branch" in note and not note.startswith("TLP"))
  ]
  us = {name: result.microseconds for name, result in results.items()}
  bound = bound_us(shape, batch_size, chip, layout)
  with target(chip):
    choice = kernels.describe(
      kernels.depthwise_conv_bn,
      *own_forward,
      activation="silu",
      stride=stride,
      layout=layout,
    )
  return {
    "layer": str(shape),
    "layout": layout,
    **{f"{name}_us": value for name, value in us.items()},
    "forward_ratio": us["xla_forward"] / us["ours_forward"],
    "ratio": us["xla"] / us["ours"],
    "bytes_ratio": results["ours"].hbm_bytes / xla_bytes,
    "bound_us": bound,
    "of_bound": bound / us["ours"],
    "chosen": choice.implementation,
    "compile_s": results["ours"].compile_s,
    "failures": failures,
    "compiler": compiler(),
    "programs": {
      name: [kernel_row(kernel) for kernel in longest_first(result.kernels)]
      for name, result in results.items()
    },
  }


def kernel_rows(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
  """The kernels of all programs of such rows, with layer and program."""
  return [
    {"layer": row["layer"], "program": program, **kernel}
    for row in rows
    for program, kernels in row["programs"].items()
    for kernel in kernels
  ]


def layer_arguments(
  shape: DepthwiseShape, batch_size: int, layout: Layout = "HWNC"
):
  """Shapes of what forward takes, and of what forward and backward take."""
  size, channels, kernel, stride = shape

  def array(*dims, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct(dims, dtype)

  def image(size):
    last = (batch_size, channels)
    return array(size, size, *(last if layout == "HWNC" else last[::-1]))

  vector = array(channels, dtype=jnp.float32)
  forward = image(size), array(kernel, kernel, channels), vector, vector
  return forward, (*forward, image(-(-size // stride)), vector, vector)


def ours(x, filters, scale, offset, stride, layout="HWNC"):
  """`plain_depthwise` by the kernels."""
  y, moments = kernels.depthwise_conv_bn(
    *(x, filters, scale, offset),
    activation="silu",
    stride=stride,
    layout=layout,
    implementation="pallas_tpu",
  )
  return y, moments.mean, moments.m2


def with_gradients(op, x, filters, scale, offset, dy, dmean, dm2):
  """The results of an op and the gradients of its arrays."""
  results, vjp = jax.vjp(op, x, filters, scale, offset)
  return results, vjp((dy, dmean, dm2))


def _plain_backward(y, x, filters, scale, offset, dy, dmean, dm2, stride):
  """The gradients of `plain_depthwise`, given y."""
  _, of_moments = jax.vjp(plain_moments, y)
  (through_moments,) = of_moments((dmean, dm2))
  convolution = partial(plain_convolution, stride=stride)
  _, of_convolution = jax.vjp(convolution, x, filters, scale, offset)
  return of_convolution(dy + through_moments)
