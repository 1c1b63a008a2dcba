"""Public op: normalisation, activation and spatial mean."""

from functools import partial
from typing import Any, Literal, overload

import jax

from ..common.activation import Activation, check_activation
from ..common.bands import over_bands, sum_bands
from ..common.explicit_shards import batch_shards, over_shards
from ..common.layout import (
  Layout,
  channel_axis,
  check_image,
  from_inner,
  inner_layout,
  to_inner,
)
from ..common.manual_axes import match_varying
from ..common.prologue import fill_affine
from ..selection.requested import Requested
from ..selection.selection import Selection, run, select
from .selection import POLICY
from .settings import Settings
from .vjp import normalise

_OP = "batch_norm"


@overload
def batch_norm(
  x: jax.Array,
  scale: jax.Array | None,
  offset: jax.Array | None,
  *,
  activation: Activation = ...,
  pool: Literal[False] = ...,
  layout: Layout = ...,
  bands: int = ...,
  implementation: Requested = ...,
) -> jax.Array: ...
@overload
def batch_norm(
  x: jax.Array,
  scale: jax.Array | None,
  offset: jax.Array | None,
  *,
  activation: Activation = ...,
  pool: Literal[True],
  layout: Layout = ...,
  bands: int = ...,
  implementation: Requested = ...,
) -> tuple[jax.Array, jax.Array]: ...
def batch_norm(
  x,
  scale,
  offset,
  *,
  activation=None,
  pool=False,
  layout="HWNC",
  bands=1,
  implementation=None,
):
  """Normalise x, apply an activation, and optionally pool.

  With `y = activation(x * scale + offset)` in float32, returns
  `y.astype(x.dtype)` and, for squeeze-excite, `y.mean((0, 1))`. The backward
  pass keeps only x of the arrays of this size.

  Args:
    x: Activation, floating-point `[h, w, n, c]` (HWNC), `[h, w, c, n]` (HWCN)
      or `[n, h, w, c]` (NHWC).
    scale: Scale from `batch_norm_affine`, float32 `[c]`; None for ones.
    offset: Offset from `batch_norm_affine`, float32 `[c]`; None for zeros.
    activation: Name in `Activation`, such as 'relu6', or None.
    pool: True to return the spatial mean as well.
    layout: Order of x's axes, 'HWNC', 'HWCN' or 'NHWC'.
    bands: Number of bands of x; see `to_bands`.
    implementation: 'xla', a sequence of names to try in order, or None to
      choose; 'pallas_tpu' does not exist for this op.

  Returns:
    y, of x's shape and dtype. With `pool` also its mean over h and w before
    rounding, float32 `[n, c]` or `[c, n]`.

  Raises:
    ValueError: Shapes, dtypes or settings do not fit each other.
    NotImplementedError: The named implementation does not exist.

  >>> import jax.numpy as jnp
  >>> x = jnp.ones((2, 2, 3, 8))
  >>> y, mean = batch_norm(
  ...   x, jnp.full(8, 2.0), jnp.ones(8), activation="relu", pool=True)
  >>> y.shape, mean.shape, mean[0, 0].item()
  ((2, 2, 3, 8), (3, 8), 3.0)
  """
  selection = describe(
    x, scale, offset, activation, layout, bands, implementation
  )
  if axes := batch_shards(_OP, x, layout):
    op = partial(
      batch_norm,
      activation=activation,
      pool=pool,
      layout=layout,
      bands=bands,
      implementation=implementation,
    )
    return over_shards(op, axes, layout, x, scale, offset)
  channels = x.shape[channel_axis(layout)] // bands
  scale, offset = fill_affine(scale, offset, channels)
  x, scale, offset = match_varying(to_inner(x, layout), scale, offset)
  settings = Settings(activation, pool, inner_layout(layout))
  with jax.named_scope(_OP):
    scale, offset = (over_bands(v, bands) for v in (scale, offset))
    implementations = {"xla": lambda *arrays: normalise(*arrays, settings)}
    result = run(selection, implementations, x, scale, offset)
    if not pool:
      return from_inner(result, layout)
    y, mean = result
    return from_inner(y, layout), sum_bands(mean, bands) / bands


def describe(
  x: jax.Array,
  scale: jax.Array | None,
  offset: jax.Array | None,
  activation: Activation,
  layout: Layout,
  bands: int,
  implementation: Requested,
  **_: Any,
) -> Selection:
  """Check the arguments and select the implementation."""
  check_image(_OP, x, layout, bands, scale=scale, offset=offset)
  check_activation(_OP, activation)
  return select(POLICY, implementation)
