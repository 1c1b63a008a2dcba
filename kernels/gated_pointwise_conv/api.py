"""Public op: the 1x1 convolution behind a squeeze-excite."""

import functools
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp

from ..channel_moments.api import channel_moments
from ..common.activation import Activation, check_activation
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
from ..common.moments import Moments
from ..common.prologue import fill_affine
from ..pointwise_conv.api import check_weights
from ..selection.requested import Requested
from ..selection.selection import Selection, select
from .selection import POLICY
from .settings import Gate, Settings
from .vjp import OP, gated


@overload
def gated_pointwise_conv_bn(
  x: jax.Array,
  kernel: jax.Array,
  scale: jax.Array | None,
  offset: jax.Array | None,
  gate: Gate | None = ...,
  gate_params: Any = ...,
  *,
  activation: Activation = ...,
  layout: Layout = ...,
  bands: int = ...,
  moments: Literal[True] = ...,
  implementation: Requested = ...,
) -> tuple[jax.Array, Moments]: ...


@overload
def gated_pointwise_conv_bn(
  x: jax.Array,
  kernel: jax.Array,
  scale: jax.Array | None,
  offset: jax.Array | None,
  gate: Gate | None = ...,
  gate_params: Any = ...,
  *,
  activation: Activation = ...,
  layout: Layout = ...,
  bands: int = ...,
  moments: Literal[False],
  implementation: Requested = ...,
) -> jax.Array: ...


def gated_pointwise_conv_bn(
  x: jax.Array,
  kernel: jax.Array,
  scale: jax.Array | None,
  offset: jax.Array | None,
  gate: Gate | None = None,
  gate_params: Any = None,
  *,
  activation: Activation = None,
  layout: Layout = "HWNC",
  bands: int = 1,
  moments: bool = True,
  implementation: Requested = None,
) -> tuple[jax.Array, Moments] | jax.Array:
  """Normalise, activate and gate x, and convolve it by 1x1 weights.

  Equivalent to::

      z = activation(x * scale + offset)
      g = gate(gate_params, z.mean((0, 1)))
      y = (z.astype(x.dtype) * g) @ kernel
      return y, channel_moments(y)

  Args:
    x: Activation, floating-point `[h, w, n, c]` (HWNC) or `[n, h, w, c]`
      (NHWC).
    kernel: Weights of the convolution, `[c, d]`, of x's dtype.
    scale: Scale from `batch_norm_affine`, float32 `[c]`; None for ones.
    offset: Offset from `batch_norm_affine`, float32 `[c]`; None for zeros.
    gate: Function of `gate_params` and the spatial mean, float32 `[n, c]`, to
      the factor of each image and channel, `[n, c]` of x's dtype; None for no
      gate, as in networks without squeeze-excite.
    gate_params: Pytree of arrays.
    activation: Name in `Activation`, such as 'relu6', or None.
    layout: Order of the axes of x and y, 'HWNC' or 'NHWC'.
    bands: Number of bands of x and y; see `to_bands`.
    moments: False to return y alone.
    implementation: 'xla', 'pallas_tpu', a sequence of them to try in order, or
      None to choose. The kernel runs in the backward pass.

  Returns:
    y, `[h, w, n, d]` in HWNC, of x's dtype, and its `Moments`. Policies of
    `jax.checkpoint` know y by the name of this function.

  Raises:
    ValueError: Shapes, dtypes or settings do not fit each other.
    NotImplementedError: The named implementation cannot run.

  Source: squeeze-excite, Hu et al. 2018.

  >>> import jax.numpy as jnp
  >>> x, ones = jnp.ones((2, 2, 1, 3)), jnp.ones(3)
  >>> gate = lambda half, mean: half * mean
  >>> y, _ = gated_pointwise_conv_bn(x, jnp.ones((3, 2)), ones, ones, gate, 0.5)
  >>> y.shape, y[0, 0, 0, 0].item()
  ((2, 2, 1, 2), 6.0)
  """
  selection = describe(
    x, kernel, scale, offset, activation, layout, bands, implementation
  )
  if axes := batch_shards(OP, x, layout):
    op: Any = gated_pointwise_conv_bn
    return over_shards(
      lambda x, kernel, scale, offset, gate_params: op(
        *(x, kernel, scale, offset, gate, gate_params),
        activation=activation,
        layout=layout,
        bands=bands,
        moments=moments,
        implementation=implementation,
      ),
      *(axes, layout, x, kernel, scale, offset, gate_params),
    )
  scale, offset = fill_affine(scale, offset, kernel.shape[0])
  leaves, structure = jax.tree.flatten(gate_params)
  x, kernel, scale, offset, *leaves = match_varying(
    to_inner(x, layout), kernel, scale, offset, *leaves
  )
  gate_params = jax.tree.unflatten(structure, leaves)
  settings = Settings(gate or _open_gate(x.dtype), activation, bands, selection)
  with jax.named_scope(OP):
    y = gated(x, kernel, scale, offset, gate_params, settings)
    found = channel_moments(y, bands=bands) if moments else None
    y = from_inner(y, layout)
    return y if found is None else (y, found)


@functools.cache
def _open_gate(dtype: jnp.dtype) -> Gate:
  """Make the gate of factors that are all 1; XLA leaves it out."""
  return lambda _, mean: jnp.ones(mean.shape, dtype)


def describe(
  x: jax.Array,
  kernel: jax.Array,
  scale: jax.Array | None,
  offset: jax.Array | None,
  activation: Activation,
  layout: Layout,
  bands: int,
  implementation: Requested,
  **_: Any,
) -> Selection:
  """Check the arguments and select the implementation."""
  layouts = "HWNC", "NHWC"
  check_image(OP, x, layout, bands, layouts, scale=scale, offset=offset)
  check_activation(OP, activation)
  check_weights(OP, x, kernel, bands)
  in_lanes = batch_fills_lanes(x, layout)
  inner = shape_of_inner(x, layout)
  return select(POLICY, implementation, inner, kernel, bands, in_lanes)
