"""Public op: the depthwise convolution."""

from functools import partial
from typing import Any, Literal, overload

import jax

from ..common.activation import Activation, check_activation
from ..common.explicit_shards import batch_shards, over_shards
from ..common.layout import (
  Layout,
  batch_fills_lanes,
  check_image,
  from_inner,
  inner_layout,
  shape_of_inner,
  to_inner,
)
from ..common.manual_axes import match_varying
from ..common.moment_sums import with_static_count
from ..common.moments import Moments
from ..selection.requested import Requested
from ..selection.selection import Selection, select
from ..tpu.chip import target_chip
from . import vjp
from .checks import OP, check_bias, check_filters, check_windows
from .outputs import add_bias, repeat_channels
from .selection import POLICY, takes_batch_in_lanes
from .settings import Call, Settings
from .window import Padding


@overload
def depthwise_conv_bn(
  x: jax.Array,
  filters: jax.Array,
  scale: jax.Array | None = ...,
  offset: jax.Array | None = ...,
  *,
  bias: jax.Array | None = ...,
  activation: Activation = ...,
  stride: int | tuple[int, int] = ...,
  padding: Padding = ...,
  dilation: int | tuple[int, int] = ...,
  layout: Layout = ...,
  bands: int = ...,
  moments: Literal[True] = ...,
  implementation: Requested = ...,
) -> tuple[jax.Array, Moments]: ...


@overload
def depthwise_conv_bn(
  x: jax.Array,
  filters: jax.Array,
  scale: jax.Array | None = ...,
  offset: jax.Array | None = ...,
  *,
  bias: jax.Array | None = ...,
  activation: Activation = ...,
  stride: int | tuple[int, int] = ...,
  padding: Padding = ...,
  dilation: int | tuple[int, int] = ...,
  layout: Layout = ...,
  bands: int = ...,
  moments: Literal[False],
  implementation: Requested = ...,
) -> jax.Array: ...


def depthwise_conv_bn(
  x: jax.Array,
  filters: jax.Array,
  scale: jax.Array | None = None,
  offset: jax.Array | None = None,
  *,
  bias: jax.Array | None = None,
  activation: Activation = None,
  stride: int | tuple[int, int] = 1,
  padding: Padding = "SAME",
  dilation: int | tuple[int, int] = 1,
  layout: Layout = "HWNC",
  bands: int = 1,
  moments: bool = True,
  implementation: Requested = None,
) -> tuple[jax.Array, Moments] | jax.Array:
  """Normalise, activate and convolve x depthwise, and compute moments.

  For HWNC equivalent to::

      z = activation(x * scale + offset).astype(x.dtype)
      y = lax.conv_general_dilated(
        z, filters[:, :, None], (stride, stride), padding,
        rhs_dilation=(dilation, dilation), feature_group_count=c,
        dimension_numbers=("HWNC", "HWIO", "HWNC"),
        preferred_element_type=jnp.float32)
      return y.astype(x.dtype), channel_moments(y)

  `scale` and `offset` apply the batch norm before the convolution, and the
  batch norm after it takes the moments. The backward pass keeps only x and y.
  Both results are differentiable, so that a batch norm's backward pass is
  ordinary differentiation. Policies of `jax.checkpoint` know both results by
  the name of this function.

  Args:
    x: Activation, floating-point `[h, w, n, c]` (HWNC), `[h, w, c, n]` (HWCN)
      or `[n, h, w, c]` (NHWC).
    filters: Filters, `[kh, kw, c]`, of x's dtype; or `[kh, kw, c, m]` for m
      results of each channel. Results of a channel are side by side, as in
      TensorFlow; c in y, bias and moments is then c * m.
    scale: Scale, float32 `[c]`; None for ones.
    offset: Offset, float32 `[c]`; None for zeros.
    bias: Bias added to y before the moments, float32 `[c]`; None for zeros. A
      batch norm behind makes it useless.
    activation: Name in `Activation`, such as 'relu6', or None; applied after
      scale and offset.
    stride: 1 or 2, or a pair of them for rows and columns.
    padding: 'SAME' (as TensorFlow: less before than after), 'VALID', the number
      of zeros on all sides (as PyTorch), or ((top, bottom), (left, right)). The
      zeros stand beside the activated input.
    dilation: Inputs from one tap to the next, or a pair for rows and columns.
    layout: Order of the axes of x and y, 'HWNC', 'HWCN' or 'NHWC'.
    bands: Number of bands of x and y; see `to_bands`. Filters, scale, offset
      and moments are those of the image, `[c]`. More than one band requires
      padding by which y has h / stride rows, h a multiple of the stride, and at
      least kh // 2 rows in each band of y.
    moments: False to return y alone, and keep only x for the backward pass.
    implementation: 'xla', 'pallas_tpu', a sequence of them to try in order, or
      None to choose.

  Returns:
    y, `[ho, wo, n, c]` in HWNC, of x's dtype, and the `Moments` of y before it
    was rounded to that dtype.

  Raises:
    ValueError: Shapes, dtypes or settings do not fit each other.
    NotImplementedError: The named implementation cannot run.

  Source: depthwise layers with distributed batch norm as in arXiv:2011.00071,
  section 3.4; the moments' merging is Chan, Golub and LeVeque 1979.

  >>> import jax.numpy as jnp
  >>> x = jnp.ones((4, 4, 2, 8))
  >>> y, moments = depthwise_conv_bn(x, jnp.ones((3, 3, 8)), stride=2)
  >>> y.shape, y[0, 0, 0, 0].item(), moments.count.item()
  ((2, 2, 2, 8), 9.0, 8.0)
  """
  settings = Settings(
    *(activation, _hashable(stride), _hashable(padding), layout, bands),
    *(_hashable(dilation), moments),
  )
  selection = _select(x, filters, scale, offset, bias, settings, implementation)
  if axes := batch_shards(OP, x, layout):
    op: Any = depthwise_conv_bn
    return over_shards(
      lambda x, filters, scale, offset, bias: op(
        *(x, filters, scale, offset),
        bias=bias,
        activation=activation,
        stride=stride,
        padding=padding,
        dilation=dilation,
        layout=layout,
        bands=bands,
        moments=moments,
        implementation=implementation,
      ),
      *(axes, layout, x, filters, scale, offset, bias),
    )
  x, filters, scale, offset = repeat_channels(x, filters, scale, offset, layout)
  inner = _inner_layout(x, layout)
  x = to_inner(x, layout, inner)
  settings = settings._replace(layout=inner)
  x, filters, scale, offset = match_varying(x, filters, scale, offset)
  with jax.named_scope(OP):
    y, found = vjp.depthwise_conv_bn(
      x, filters, scale, offset, Call(settings, selection)
    )
  if bias is not None:
    y, found = add_bias(y, found, bias, settings.layout, bands)
  y = from_inner(y, layout, inner)
  return y if found is None else (y, with_static_count(found, y))


def describe(
  x: jax.Array,
  filters: jax.Array,
  scale: jax.Array | None,
  offset: jax.Array | None,
  bias: jax.Array | None,
  implementation: Requested,
  **settings: Any,
) -> Selection:
  """Select as `depthwise_conv_bn` does, given all of its arguments."""
  settings = {name: _hashable(value) for name, value in settings.items()}
  return _select(
    x, filters, scale, offset, bias, Settings(**settings), implementation
  )


def _inner_layout(x: jax.Array, layout: Layout) -> Layout:
  """Return the layout to compute in; a full batch goes in a TPU's lanes."""
  in_lanes = batch_fills_lanes(x, layout)
  if in_lanes and takes_batch_in_lanes(target_chip().name):
    return "HWCN"
  return inner_layout(layout)


def _hashable(setting: Any) -> Any:
  """Replace lists, such as those of `lax`, by tuples."""
  if isinstance(setting, list | tuple):
    return tuple(map(_hashable, setting))
  return setting


def _select(
  x, filters, scale, offset, bias, settings: Settings, implementation
) -> Selection:
  """Check the arguments and select the implementation."""
  layout, bands = settings.layout, settings.bands
  check_image(OP, x, layout, bands, scale=scale, offset=offset)
  check_activation(OP, settings.activation)
  check_filters(x, filters, settings)
  check_bias(x, filters, bias)
  x, filters, *_ = jax.eval_shape(
    partial(repeat_channels, layout=layout), x, filters, scale, offset
  )
  inner = _inner_layout(x, layout)
  x = shape_of_inner(x, layout, inner)
  settings = settings._replace(layout=inner)
  check_windows(x, filters, settings)
  return select(POLICY, implementation, x, filters, settings)
