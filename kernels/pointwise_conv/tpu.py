"""Large products of an expansion's backward pass as one kernel.

XLA reads the wide cotangent for each of two products, and transposes it in
memory for the second where an image is in bands. The kernel reads it once.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from ..common.pointwise_matmul import as_matrix
from ..tpu.pallas_call import tpu_call
from ..tpu.pixels import Plan, plan_pixels, sum_products, sums, whole
from .xla import Products

_F32 = jnp.float32


def plan(
  x: jax.Array, weights: jax.Array, bands: int, batch_in_lanes: bool = False
) -> Plan:
  """Choose the number of pixels of a grid step.

  Raises:
    NotImplementedError: The kernel cannot run.
  """
  del batch_in_lanes  # matters to the choice only
  c, d = weights.shape
  if d <= c:
    raise NotImplementedError(
      "pointwise_conv_bn: pallas_tpu requires out_channels > in_channels, got "
      f"{c} to {d}"
    )
  c, d = bands * c, bands * d
  return plan_pixels(
    "pointwise_conv_bn",
    x,
    # x, dy and dx.
    streamed=[(c, x.dtype), (d, x.dtype), (c, x.dtype)],
    # dx before it is rounded, x in float32, and x minus its middle.
    made=[(c, _F32), (c, _F32), (c, x.dtype)],
    # The matrices; the sums, and what a step adds to the sums.
    kept=[(d, c, x.dtype), (c, c, x.dtype), *[(c, c + d, _F32)] * 2],
  )


def products(
  x: jax.Array,
  dy: jax.Array,
  middle: jax.Array,
  weights: jax.Array,
  through: jax.Array,
  plan: Plan,
) -> Products:
  """Compute `xla.products` in one pass over x and dy.

  The kernel writes dx in x's dtype.
  """
  (*_, c), d = x.shape, dy.shape[3]
  results = tpu_call(
    _kernel,
    name="pointwise_conv_bn_backward",
    grid=(1, plan.steps),
    inputs={
      "x": plan.streamed(x),
      "dy": plan.streamed(dy),
      "middle": whole(middle[None]),
      "weights": whole(weights),
      "through": whole(through),
    },
    outputs={
      "dx": (plan.shape(x), x.dtype, plan.block(c)),
      "cross": sums((c, d)),
      "gram": sums((c, c)),
      "total": sums((1, c)),
    },
    scratch={},
    vmem_limit_bytes=plan.vmem_limit_bytes,
    cost=pl.CostEstimate(
      flops=(4 * d + 4 * c) * x.size,
      transcendentals=0,
      bytes_accessed=2 * x.nbytes + dy.nbytes,
    ),
  )
  return Products(
    dx=results["dx"].reshape(x.shape).astype(_F32),
    cross=results["cross"],
    gram=results["gram"],
    total=results["total"][0],
  )


def _kernel(refs) -> None:
  @pl.when(pl.program_id(1) == 0)
  def _():
    for ref in (refs.cross, refs.gram, refs.total):
      ref[...] = jnp.zeros_like(ref)

  x, dy = (as_matrix(ref[...]) for ref in (refs.x, refs.dy))
  z = (x.astype(_F32) - refs.middle[...]).astype(x.dtype)
  dot = partial(jnp.dot, preferred_element_type=_F32)
  dx = dot(dy, refs.weights[...]) + dot(z, refs.through[...])
  refs.dx[...] = dx.astype(x.dtype).reshape(refs.dx.shape)
  refs.cross[...] += sum_products(x, dy)
  refs.gram[...] += sum_products(z, z)
  refs.total[...] += z.astype(_F32).sum(0, keepdims=True)
