"""Estimates of the depthwise op on a TPU, against XLA's own fusions.

Both sides are compiled for the chip, and the same interpreter of the compiled
code estimates their times.
"""

import sys
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ... import kernels
from ...kernels.surface import Layout
from ..depthwise_bound import bound_us, padded
from ..layers import DepthwiseShape
from ..plain.depthwise import plain_backward, plain_depthwise
from .routine_rows import longest_first, routine_row
from .static import Estimate, compiler, estimate_function, target


def estimate_depthwise(
  shapes: Iterable[DepthwiseShape], *, batch_size: int, chip: str
) -> list[dict[str, Any]]:
  """Estimate forward and backward of depthwise layers, in bfloat16.

  Both sides compute the affine and swish of the batch norm before, the
  convolution, the moments of the batch norm behind, and then all gradients,
  through the moments as well. XLA chooses the layouts of its arguments; the
  kernels get the layout of `better_layout`.

  Forward and backward are one program, which favours XLA: XLA keeps arrays in
  VMEM between the two passes, where in a network the other layers come in
  between. XLA's HBM bytes are therefore taken from two programs.

  Args:
    shapes: Layers.
    batch_size: Images on the core.
    chip: One of `CHIPS`.

  Returns:
    A row per layer: chip, images and the kernels' layout; estimated
    microseconds of both sides, forward alone and together with backward; the
    ratios; our HBM bytes divided by XLA's; the bound (see `bound_us`) and its
    fraction of our time; the implementation that `implementation=None` selects;
    the seconds to compile our side; the kernels whose time is unknown, with the
    reason; and under "programs" a `routine_row` for each fusion and kernel of
    both sides.

  Raises:
    UsageError: The chip is unknown, or libtpu is missing.
  """
  rows = []
  for shape in shapes:  # each compiles for seconds to minutes
    row = _row(shape, batch_size, chip)
    rows.append(row)
    for note in (f"{shape}: {row['ratio']:.2f} times XLA", *row["failures"]):
      print(note, file=sys.stderr, flush=True)
  return rows


def better_layout(shape: DepthwiseShape, batch_size: int) -> Layout:
  """Return the layout that fills more of the 128 lanes.

  Channels are in the lanes in "HWNC", images in "HWCN".

  >>> better_layout(DepthwiseShape(112, 32, 3, 1), 64)
  'HWCN'
  """
  channels, images = (
    size / padded(size, 128) for size in (shape.channels, batch_size)
  )
  return "HWCN" if images > channels else "HWNC"


def _row(shape: DepthwiseShape, batch_size: int, chip: str) -> dict[str, Any]:
  layout = better_layout(shape, batch_size)
  xla = partial(estimate_function, chip=chip, free_layouts=True)
  own = partial(estimate_function, chip=chip)
  plain, stride = partial(plain_depthwise, stride=shape.stride), shape.stride
  op = partial(ours, stride=stride, layout=layout)
  forward, both = layer_arguments(shape, batch_size)
  own_forward, own_both = layer_arguments(shape, batch_size, layout)
  results: dict[str, Estimate] = {
    "xla_forward": xla(plain, *forward),
    "xla": xla(partial(with_gradients, plain), *both),
    "ours_forward": own(op, *own_forward),
    "ours": own(partial(with_gradients, op), *own_both),
  }
  y = both[4]  # dy has the shape of y
  xla_backward = xla(partial(plain_backward, stride=stride), y, *both)
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
    selection = kernels.describe(
      kernels.depthwise_conv_bn,
      *own_forward,
      activation="silu",
      stride=stride,
      layout=layout,
    )
  return {
    "layer": str(shape),
    "chip": chip,
    "images": batch_size,
    "layout": layout,
    **{f"{name}_us": value for name, value in us.items()},
    "forward_ratio": us["xla_forward"] / us["ours_forward"],
    "ratio": us["xla"] / us["ours"],
    "bytes_ratio": results["ours"].hbm_bytes / xla_bytes,
    "bound_us": bound,
    "of_bound": bound / us["ours"],
    "chosen": selection.implementation,
    "compile_s": results["ours"].compile_s,
    "failures": failures,
    "compiler": compiler(),
    "programs": {
      name: [routine_row(r) for r in longest_first(result.routines)]
      for name, result in results.items()
    },
  }


def kernel_rows(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
  """List the fusions and kernels of all programs, with layer and program.

  Args:
    rows: Rows of `estimate_depthwise`.
  """
  return [
    {"layer": row["layer"], "program": program, **routine}
    for row in rows
    for program, routines in row["programs"].items()
    for routine in routines
  ]


def layer_arguments(
  shape: DepthwiseShape, batch_size: int, layout: Layout = "HWNC"
):
  """Return the shapes of a layer's arguments.

  Args:
    shape: Layer.
    batch_size: Number of images.
    layout: "HWNC" or "HWCN".

  Returns:
    The arguments of the forward pass, and of both passes together.
  """
  size, channels, kernel_size, stride = shape

  def array(*dims, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct(dims, dtype)

  def image(size):
    last = (batch_size, channels)
    return array(size, size, *(last if layout == "HWNC" else last[::-1]))

  vector = array(channels, dtype=jnp.float32)
  filters = array(kernel_size, kernel_size, channels)
  forward = image(size), filters, vector, vector
  return forward, (*forward, image(-(-size // stride)), vector, vector)


def ours(x, filters, scale, offset, stride, layout="HWNC"):
  """Compute `plain_depthwise` with the Pallas kernels."""
  y, moments = kernels.depthwise_conv_bn(
    *(x, filters, scale, offset),
    activation="silu",
    stride=stride,
    layout=layout,
    implementation="pallas_tpu",
  )
  return y, moments.mean, moments.m2


def with_gradients(op, x, filters, scale, offset, dy, dmean, dm2):
  """Return the results of an op and the gradients of its arrays."""
  results, vjp = jax.vjp(op, x, filters, scale, offset)
  return results, vjp((dy, dmean, dm2))
