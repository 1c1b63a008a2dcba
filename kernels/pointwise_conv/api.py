"""Public op: the 1x1 convolution."""

from functools import partial
from typing import Any, Literal, overload

import jax
from jax.ad_checkpoint import checkpoint_name

from ..channel_moments.api import channel_moments
from ..common.bands import channels_of_band
from ..common.explicit_shards import batch_shards, over_shards
from ..common.layout import (
  Layout,
  batch_fills_lanes,
  check_image,
  from_inner,
  shape_of_inner,
  to_inner,
)
from ..common.manual_axes import match_varying
from ..common.moment_sums import with_static_count
from ..common.moments import Moments
from ..common.pointwise_matmul import block_diagonal, pointwise_matmul
from ..selection.requested import Requested
from ..selection.selection import Selection, select
from .selection import POLICY
from .vjp import expansion

_OP = "pointwise_conv_bn"


@overload
def pointwise_conv_bn(
  x: jax.Array,
  kernel: jax.Array,
  *,
  layout: Layout = ...,
  bands: int = ...,
  moments: Literal[True] = ...,
  implementation: Requested = ...,
) -> tuple[jax.Array, Moments]: ...


@overload
def pointwise_conv_bn(
  x: jax.Array,
  kernel: jax.Array,
  *,
  layout: Layout = ...,
  bands: int = ...,
  moments: Literal[False],
  implementation: Requested = ...,
) -> jax.Array: ...


def pointwise_conv_bn(
  x: jax.Array,
  kernel: jax.Array,
  *,
  layout: Layout = "HWNC",
  bands: int = 1,
  moments: bool = True,
  implementation: Requested = None,
) -> tuple[jax.Array, Moments] | jax.Array:
  """Convolve x by 1x1 weights, and compute the moments of the result.

  Equivalent to `y = x @ kernel` and `channel_moments(y)`, summed in float32.
  If y has more channels than x, the backward pass keeps only x. Policies of
  `jax.checkpoint` know the moments by the name of this function.

  Args:
    x: Activation, floating-point `[h, w, n, c]` (HWNC) or `[n, h, w, c]`
      (NHWC).
    kernel: Weights of the convolution, `[c, d]`, of x's dtype.
    layout: Order of the axes of x and y, 'HWNC' or 'NHWC'.
    bands: Number of bands of x and y; see `to_bands`.
    moments: False to return y alone.
    implementation: 'xla', 'pallas_tpu', a sequence of them to try in order, or
      None to choose. The kernel runs in the backward pass, if y has more
      channels than x and moments are computed.

  Returns:
    y, `[h, w, n, d]` in HWNC, of x's dtype, and its `Moments`.

  Raises:
    ValueError: Shapes or dtypes do not fit each other.
    NotImplementedError: The named implementation cannot run.

  Source: the expansion of Sandler et al. 2018.

  >>> import jax.numpy as jnp
  >>> y, moments = pointwise_conv_bn(jnp.ones((2, 2, 1, 3)), jnp.ones((3, 8)))
  >>> y.shape, y[0, 0, 0, 0].item(), moments.mean[0].item()
  ((2, 2, 1, 8), 3.0, 3.0)
  """
  selection = describe(x, kernel, layout, bands, implementation)
  if axes := batch_shards(_OP, x, layout):
    op = partial(
      pointwise_conv_bn,
      layout=layout,
      bands=bands,
      moments=moments,
      implementation=implementation,
    )
    return over_shards(op, axes, layout, x, kernel)
  x, kernel = match_varying(to_inner(x, layout), kernel)
  found: Moments | None
  with jax.named_scope(_OP):
    if moments and kernel.shape[1] > kernel.shape[0]:
      y, found = expansion(x, kernel, bands, selection)
    else:
      y = pointwise_matmul(x, block_diagonal(kernel, bands))
      found = channel_moments(y, bands=bands) if moments else None
  if found is None:
    return from_inner(y, layout)
  found = with_static_count(checkpoint_name(found, _OP), y)
  return from_inner(y, layout), found


def describe(
  x: jax.Array,
  kernel: jax.Array,
  layout: Layout,
  bands: int,
  implementation: Requested,
  **_: Any,
) -> Selection:
  """Check the arguments and select the implementation."""
  check_image(_OP, x, layout, bands, ("HWNC", "NHWC"))
  check_weights(_OP, x, kernel, bands)
  in_lanes = batch_fills_lanes(x, layout)
  inner = shape_of_inner(x, layout)
  return select(POLICY, implementation, inner, kernel, bands, in_lanes)


def check_weights(op: str, x: jax.Array, kernel: jax.Array, bands: int) -> None:
  """Check the weights of a 1x1 convolution.

  Raises:
    ValueError: The shapes or dtypes do not fit.
  """
  c = channels_of_band(op, x, bands)
  if kernel.ndim != 2 or kernel.shape[0] != c or kernel.shape[1] == 0:
    cure = ""
    if kernel.shape[:3] == (1, 1, c):
      cure = "; pass kernel[0, 0] of a kernel in HWIO"
    raise ValueError(
      f"{op}: kernel must have shape ({c}, d) for x of shape {x.shape}"
      f"{f' in {bands} bands' if bands > 1 else ''}, got {kernel.shape}{cure}"
    )
  if kernel.dtype != x.dtype:
    raise ValueError(
      f"{op}: the kernel is {kernel.dtype} but x is {x.dtype}; cast one of them"
    )
