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

from .. import kernels
from .kernels import plain_depthwise
from .shapes import DepthwiseShape
from .static import CHIPS, Judged, judge

_LANES = 128


def estimate_depthwise(
  shapes: Iterable[DepthwiseShape], *, batch_size: int, chip: str
) -> list[dict[str, Any]]:
  """Judges forward and backward of depthwise layers, in bfloat16.

  Both sides: the previous batch norm's affine and swish, the convolution and
  the next batch norm's moments; then all gradients, moments' included. XLA
  chooses the layouts of its arguments, the kernels take HWNC.

  Args:
    shapes: The layers.
    batch_size: Images on the core.
    chip: One of `static.CHIPS`.

  Returns:
    A row per layer: estimated microseconds of both sides, forward alone and
    together with backward; the ratios; our HBM bytes over XLA's; the bound
    (see `bound_us`) and what fraction of our time it is; what our side takes
    to compile, in seconds.

  Raises:
    UsageError: the chip is not known, or libtpu is missing.
  """
  rows = []
  for shape in shapes:  # each takes seconds to minutes
    rows.append(_row(shape, batch_size, chip))
    ratio = rows[-1]["ratio"]
    print(f"{shape}: {ratio:.2f} times XLA", file=sys.stderr, flush=True)
  return rows


def bound_us(shape: DepthwiseShape, batch_size: int, chip: str) -> float:
  """The least that forward and backward can take, in microseconds.

  The larger of two times: each tensor once through HBM, two forward and four
  backward, with channels padded to 128 lanes; and the vector operations of the
  direct form, a multiply and an add for each tap of y, of dx and of the
  filters' gradient, in all vector slots. A transformed convolution could do
  with fewer.
  """
  size, channels, kernel, stride = shape
  lanes = -(-channels // _LANES) * _LANES
  x = size * size * batch_size * lanes
  y = x * (-(-size // stride)) ** 2 / size**2
  spec = CHIPS[chip]
  hbm = 2 * (3 * x + 3 * y) / (spec.hbm_gb_per_s * 1e3)
  operations = 6 * kernel**2 * y / (8 * _LANES)
  return max(hbm, operations / (spec.vector_slots * spec.mhz))


def _row(shape: DepthwiseShape, batch_size: int, chip: str) -> dict[str, Any]:
  forward, both = layer_arguments(shape, batch_size)
  results: dict[str, Judged] = {}
  for name, op in (("xla", plain_depthwise), ("ours", ours)):
    op = partial(op, stride=shape.stride)
    side = partial(judge, chip=chip, free_layouts=name == "xla")
    results[f"{name}_forward"] = side(op, *forward)
    results[name] = side(partial(with_gradients, op), *both)
  microseconds = {f"{k}_us": v.microseconds for k, v in results.items()}
  theirs, own = results["xla"], results["ours"]
  bound = bound_us(shape, batch_size, chip)
  return {
    "layer": str(shape),
    **microseconds,
    "forward_ratio": results["xla_forward"].microseconds
    / results["ours_forward"].microseconds,
    "ratio": theirs.microseconds / own.microseconds,
    "bytes_ratio": own.hbm_bytes / theirs.hbm_bytes,
    "bound_us": bound,
    "of_bound": bound / own.microseconds,
    "compile_s": own.compile_s,
  }


def layer_arguments(shape: DepthwiseShape, batch_size: int):
  """Shapes of what forward takes, and of what forward and backward take."""
  size, channels, kernel, stride = shape
  out = -(-size // stride)

  def array(*dims, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct(dims, dtype)

  vector = array(channels, dtype=jnp.float32)
  forward = (
    array(size, size, batch_size, channels),
    array(kernel, kernel, channels),
    vector,
    vector,
  )
  return forward, (
    *forward,
    array(out, out, batch_size, channels),
    vector,
    vector,
  )


def ours(x, filters, scale, offset, stride):
  """`plain_depthwise` by the kernels."""
  y, moments = kernels.depthwise_conv_bn(
    *(x, filters, scale, offset),
    activation="silu",
    stride=stride,
    implementation="pallas_tpu",
  )
  return y, moments.mean, moments.m2


def with_gradients(op, x, filters, scale, offset, dy, dmean, dm2):
  """The results of an op and the gradients of its arrays."""
  results, vjp = jax.vjp(op, x, filters, scale, offset)
  return results, vjp((dy, dmean, dm2))
