"""Times of the depthwise op on the device at hand, against plain JAX."""

from collections.abc import Iterable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from ... import kernels
from ...kernels.surface import target_chip
from ..chips import CHIPS
from ..depthwise_bound import bound_us
from ..layers import DepthwiseShape
from ..plain.depthwise import plain_depthwise
from .difference import relative_difference
from .timing import compile_and_time


def compare_depthwise(
  shapes: Iterable[DepthwiseShape], *, batch_size: int, runs: int
) -> list[dict[str, Any]]:
  """Time forward and backward of depthwise layers.

  Both sides compute the affine and swish of the batch norm before, the
  convolution, the moments of the batch norm behind, and all gradients; in
  `bench_dtype`.

  Args:
    shapes: Layers.
    batch_size: Number of images.
    runs: Number of timed runs of each side.

  Returns:
    A row per layer: median seconds of both sides, their ratio, the largest
    `relative_difference` of the gradients, and the peak memory of ours; on a
    TPU also the bound (see `bound_us`) and its fraction of our time; and under
    "plain" and "podscale" all of `Timing.row`.
  """
  return [_row(shape, batch_size, runs) for shape in shapes]


def _row(shape: DepthwiseShape, batch_size: int, runs: int) -> dict[str, Any]:
  args = _arguments(shape, batch_size)
  functions = [_gradients(f, shape.stride) for f in (plain_depthwise, _ours)]
  plain, ours = (compile_and_time(f, *args, runs=runs) for f in functions)
  return {
    "layer": str(shape),
    "plain_s": plain.median,
    "podscale_s": ours.median,
    "ratio": plain.median / ours.median,
    "difference": relative_difference(plain.first, ours.first),
    "peak_bytes": ours.peak_bytes,
    "clock": ours.clock,
    **_bound(shape, batch_size, ours.median),
    "plain": plain.row(),
    "podscale": ours.row(),
  }


def bench_dtype() -> Literal["bfloat16", "float32"]:
  """Return the dtype of benchmarks: bfloat16 on a TPU, float32 elsewhere."""
  return "bfloat16" if jax.default_backend() == "tpu" else "float32"


def _bound(shape, batch_size, seconds) -> dict[str, float]:
  chip = target_chip().name
  if chip not in CHIPS:
    return {}
  bound = bound_us(shape, batch_size, chip, "HWNC")
  return {"bound_us": bound, "of_bound": bound / (1e6 * seconds)}


def _arguments(shape: DepthwiseShape, batch_size: int) -> list[jax.Array]:
  size, channels, kernel_size, _ = shape
  shapes = [
    (size, size, batch_size, channels),
    (kernel_size, kernel_size, channels),
    (channels,),
    (channels,),
  ]
  keys = jax.random.split(jax.random.key(0), len(shapes))
  dtypes = [jnp.dtype(bench_dtype())] * 2 + [jnp.dtype("float32")] * 2
  return [
    jax.random.normal(*each) for each in zip(keys, shapes, dtypes, strict=True)
  ]


def _ours(x, filters, scale, offset, stride):
  y, moments = kernels.depthwise_conv_bn(
    x, filters, scale, offset, activation="silu", stride=stride
  )
  return y, moments.mean, moments.m2


def _gradients(function, stride):
  """Differentiate a scalar that depends on every result."""

  def scalar(*args):
    y, mean, m2 = function(*args, stride)
    return jnp.mean(y * y) + jnp.sum(jnp.sin(mean)) + jnp.mean(jnp.log1p(m2))

  return jax.grad(scalar, argnums=(0, 1, 2, 3))
