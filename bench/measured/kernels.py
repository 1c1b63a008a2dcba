"""The depthwise op on the device at hand, against plain JAX."""

from collections.abc import Iterable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from ... import kernels
from ...kernels.surface import target_chip
from ..estimated.depthwise_bound import bound_us
from ..estimated.static import CHIPS
from ..layers import DepthwiseShape
from .difference import relative_difference
from .timing import compile_and_time


def compare_depthwise(
  shapes: Iterable[DepthwiseShape], *, batch_size: int, runs: int
) -> list[dict[str, Any]]:
  """Times forward and backward of depthwise layers.

  Both sides: the previous batch norm's affine and swish, the convolution, the
  next batch norm's moments, and all gradients; in `bench_dtype`.

  Args:
    shapes: The layers.
    batch_size: Images.
    runs: How many runs to time of each.

  Returns:
    A row per layer: median seconds of both, their ratio, the largest
    `relative_difference` of the gradients, and what ours takes of memory; on a
    TPU also the bound (see `bound_us`) and what fraction of our time it is;
    and under "plain" and "podscale" all of `Timing.row`.
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
  """What a device trains in: bfloat16 on a TPU, else float32."""
  return "bfloat16" if jax.default_backend() == "tpu" else "float32"


def _bound(shape, batch_size, seconds) -> dict[str, float]:
  chip = target_chip().name
  if chip not in CHIPS:
    return {}
  bound = bound_us(shape, batch_size, chip, "HWNC")
  return {"bound_us": bound, "of_bound": bound / (1e6 * seconds)}


def _arguments(shape: DepthwiseShape, batch_size: int) -> list[jax.Array]:
  size, channels, kernel, _ = shape
  shapes = [
    (size, size, batch_size, channels),
    (kernel, kernel, channels),
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


def plain_depthwise(x, filters, scale, offset, stride):
  """What `depthwise_conv_bn` with silu computes, as anyone would write it."""
  y = plain_convolution(x, filters, scale, offset, stride)
  return y, *plain_moments(y)


def plain_convolution(x, filters, scale, offset, stride):
  """The part of `plain_depthwise` without the moments."""
  z = jax.nn.silu(
    x.astype(jnp.float32) * scale[None, None, None] + offset[None, None, None]
  )
  return lax.conv_general_dilated(
    z.astype(x.dtype),
    filters[:, :, None],
    (stride, stride),
    "SAME",
    feature_group_count=x.shape[3],
    dimension_numbers=("HWNC", "HWIO", "HWNC"),
    preferred_element_type=jnp.float32,
  ).astype(x.dtype)


def plain_moments(y):
  """Mean and sum of squared deviations of each channel.

  E[y^2] - E[y]^2 as TensorFlow's fused batch norm has it: one pass over y.
  """
  values = y.astype(jnp.float32)
  count = y.size // y.shape[3]
  mean = values.mean((0, 1, 2))
  squares = jnp.square(values).sum((0, 1, 2))
  return mean, squares - count * mean * mean


def _gradients(function, stride):
  """All gradients of a scalar that depends on every result."""

  def scalar(*args):
    y, mean, m2 = function(*args, stride)
    return jnp.mean(y * y) + jnp.sum(jnp.sin(mean)) + jnp.mean(jnp.log1p(m2))

  return jax.grad(scalar, argnums=(0, 1, 2, 3))
