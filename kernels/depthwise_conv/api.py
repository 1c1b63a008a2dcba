"""Public op: the depthwise convolution."""

from collections.abc import Container
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp

from ..common.activation import Activation, check_activation
from ..common.layout import (
  Layout,
  channel_axis,
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
from . import vjp
from .selection import POLICY
from .settings import Call, Settings
from .window import Padding

_OP = "depthwise_conv_bn"


@overload
def depthwise_conv_bn(
  x: jax.Array,
  filters: jax.Array,
  scale: jax.Array | None = ...,
  offset: jax.Array | None = ...,
  *,
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
    filters: Filters, `[kh, kw, c]`, of x's dtype.
    scale: Scale, float32 `[c]`; None for ones.
    offset: Offset, float32 `[c]`; None for zeros.
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
  selection = _select(x, filters, scale, offset, settings, implementation)
  x = to_inner(x, layout)
  settings = settings._replace(layout=inner_layout(layout))
  x, filters, scale, offset = match_varying(x, filters, scale, offset)
  with jax.named_scope(_OP):
    y, found = vjp.depthwise_conv_bn(
      x, filters, scale, offset, Call(settings, selection)
    )
  y = from_inner(y, layout)
  return y if found is None else (y, with_static_count(found, y))


def describe(
  x: jax.Array,
  filters: jax.Array,
  scale: jax.Array | None,
  offset: jax.Array | None,
  implementation: Requested,
  **settings: Any,
) -> Selection:
  """Select as `depthwise_conv_bn` does, given all of its arguments."""
  settings = {name: _hashable(value) for name, value in settings.items()}
  return _select(
    x, filters, scale, offset, Settings(**settings), implementation
  )


def _hashable(setting: Any) -> Any:
  """Replace lists, such as those of `lax`, by tuples."""
  if isinstance(setting, list | tuple):
    return tuple(map(_hashable, setting))
  return setting


def _select(
  x, filters, scale, offset, settings: Settings, implementation
) -> Selection:
  """Check the arguments and select the implementation."""
  layout, bands = settings.layout, settings.bands
  check_image(_OP, x, layout, bands, scale=scale, offset=offset)
  check_activation(_OP, settings.activation)
  _check_filters(x, filters, settings)
  x = shape_of_inner(x, layout)
  settings = settings._replace(layout=inner_layout(layout))
  _check_geometry(x, filters, settings)
  return select(POLICY, implementation, x, filters, settings)


def _check_geometry(x, filters, settings: Settings) -> None:
  _check_windows(x, filters, settings)
  if settings.bands != 1:
    _check_bands(x, filters, settings)


def _check_windows(x, filters, settings):
  if not _is_pair(settings.stride, (1, 2)):
    raise ValueError(
      f"{_OP}: stride must be 1, 2 or a pair of them, got {settings.stride!r} "
      f"for x of shape {x.shape} and filters {filters.shape}"
    )
  if not _is_pair(settings.dilation, range(1, 2**16)):
    raise ValueError(
      f"{_OP}: dilation must be a positive integer or a pair of them, got "
      f"{settings.dilation!r}"
    )
  if not _is_padding(settings.padding):
    raise ValueError(
      f"{_OP}: padding must be 'SAME', 'VALID', an integer of at least 0 or "
      f"((top, bottom), (left, right)), got {settings.padding!r}"
    )
  if min(axis.out for axis in settings.windows(x, filters)) < 1:
    raise ValueError(
      f"{_OP}: x of shape {x.shape} with padding {settings.padding!r} is "
      f"smaller than the filters {filters.shape} with dilation "
      f"{settings.dilation}"
    )


def _is_pair(value: Any, allowed: Container[int]) -> bool:
  """Return True for an allowed integer or a pair of them."""
  pair = value if isinstance(value, tuple) else (value, value)
  return len(pair) == 2 and all(
    isinstance(x, int) and x in allowed for x in pair
  )


def _is_padding(padding: Any) -> bool:
  if isinstance(padding, str):
    return padding in ("SAME", "VALID")
  sizes = range(2**16)
  if not isinstance(padding, tuple):
    return _is_pair(padding, sizes)
  return len(padding) == 2 and all(
    isinstance(side, tuple) and _is_pair(side, sizes) for side in padding
  )


def _check_bands(x, filters, settings):
  rows, stride = x.shape[0], settings.strides[0]
  if rows % stride or rows // stride < filters.shape[0] // 2:
    raise ValueError(
      f"{_OP}: bands of {rows} rows are too short, or not of whole strides, "
      f"for filters {filters.shape} and stride {settings.stride}"
    )
  (low, out), *_ = ((x.low, x.out) for x in settings.windows(x, filters))
  if out != rows // stride or low > filters.shape[0] // 2:
    raise ValueError(
      f"{_OP}: bands need padding by which y has h / stride rows, got padding "
      f"{settings.padding!r} for filters {filters.shape}"
    )
  if settings.dilations[0] != 1:
    raise ValueError(f"{_OP}: bands need dilation 1, got {settings.dilation}")


def _check_filters(x, filters, settings):
  layout = settings.layout
  channels = x.shape[channel_axis(layout)] // settings.bands
  if filters.ndim != 3 or filters.shape[2] != channels:
    raise ValueError(
      f"{_OP}: filters must have shape (kh, kw, {channels}) for x of shape "
      f"{x.shape} in {layout}, got {filters.shape}"
    )
  if 0 in filters.shape:
    raise ValueError(f"{_OP}: filters are empty, shape {filters.shape}")
  if not jnp.issubdtype(filters.dtype, jnp.floating):
    raise ValueError(f"{_OP}: filters must be floating, got {filters.dtype}")
  if filters.dtype != x.dtype:
    raise ValueError(
      f"{_OP}: filters are {filters.dtype} but x is {x.dtype}; cast one of them"
    )
