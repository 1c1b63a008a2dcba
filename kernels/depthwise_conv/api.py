"""Public op: the depthwise convolution."""

from typing import Any

import jax
import jax.numpy as jnp

from ..common.activation import Activation, check_activation
from ..common.layout import Layout, channel_axis, check_image
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


def depthwise_conv_bn(
  x: jax.Array,
  filters: jax.Array,
  scale: jax.Array | None = None,
  offset: jax.Array | None = None,
  *,
  activation: Activation = None,
  stride: int = 1,
  padding: Padding = "SAME",
  layout: Layout = "HWNC",
  bands: int = 1,
  implementation: Requested = None,
) -> tuple[jax.Array, Moments]:
  """Normalise, activate and convolve x depthwise, and compute moments.

  For HWNC equivalent to::

      z = activation(x * scale + offset).astype(x.dtype)
      y = lax.conv_general_dilated(
        z, filters[:, :, None], (stride, stride), padding,
        feature_group_count=c, dimension_numbers=("HWNC", "HWIO", "HWNC"),
        preferred_element_type=jnp.float32)
      return y.astype(x.dtype), channel_moments(y)

  `scale` and `offset` apply the batch norm before the convolution, and the
  batch norm after it takes the moments. The backward pass keeps only x and y.
  Both results are differentiable, so that a batch norm's backward pass is
  ordinary differentiation. Policies of `jax.checkpoint` know both results by
  the name of this function.

  Args:
    x: Activation, floating-point `[h, w, n, c]` (HWNC) or `[h, w, c, n]`
      (HWCN).
    filters: Filters, `[k, k, c]` with k odd, of x's dtype.
    scale: Scale, float32 `[c]`; None for ones.
    offset: Offset, float32 `[c]`; None for zeros.
    activation: Name in `Activation`, such as 'relu6', or None; applied after
      scale and offset.
    stride: Stride in both directions, 1 or 2.
    padding: 'SAME' (as TensorFlow: less before than after) or 'VALID'.
    layout: Order of x's axes, 'HWNC' or 'HWCN'.
    bands: Number of bands of x and y; see `to_bands`. Filters, scale, offset
      and moments are those of the image, `[c]`. More than one band requires
      padding 'SAME', h a multiple of the stride, and at least k // 2 rows in
      each band of y.
    implementation: 'xla', 'pallas_tpu', a sequence of them to try in order, or
      None to choose.

  Returns:
    y, `[ho, wo, n, c]` or `[ho, wo, c, n]`, of x's dtype, and the `Moments` of
    y before it was rounded to that dtype.

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
  settings = Settings(activation, stride, padding, layout, bands)
  selection = _select(x, filters, scale, offset, settings, implementation)
  x, filters, scale, offset = match_varying(x, filters, scale, offset)
  with jax.named_scope(_OP):
    y, moments = vjp.depthwise_conv_bn(
      x, filters, scale, offset, Call(settings, selection)
    )
  return y, with_static_count(moments, y)


def describe(
  x: jax.Array,
  filters: jax.Array,
  scale: jax.Array | None,
  offset: jax.Array | None,
  implementation: Requested,
  **settings: Any,
) -> Selection:
  """Select as `depthwise_conv_bn` does, given all of its arguments."""
  return _select(
    x, filters, scale, offset, Settings(**settings), implementation
  )


def _select(
  x, filters, scale, offset, settings: Settings, implementation
) -> Selection:
  """Check the arguments and select the implementation."""
  _check(x, filters, scale, offset, settings)
  return select(POLICY, implementation, x, filters, settings)


def _check(x, filters, scale, offset, settings: Settings) -> None:
  layout, bands = settings.layout, settings.bands
  check_image(_OP, x, layout, bands, scale=scale, offset=offset)
  check_activation(_OP, settings.activation)
  _check_filters(x, filters, settings)
  if settings.stride not in (1, 2):
    raise ValueError(
      f"{_OP}: stride must be 1 or 2, got {settings.stride} for x of shape "
      f"{x.shape} and filters {filters.shape}"
    )
  padding = settings.padding
  if padding not in ("SAME", "VALID"):
    raise ValueError(f"{_OP}: padding must be SAME or VALID, got {padding!r}")
  if padding == "VALID" and min(x.shape[:2]) < filters.shape[0]:
    raise ValueError(
      f"{_OP}: x of shape {x.shape} is smaller than the filters "
      f"{filters.shape}, and padding is VALID"
    )
  if bands != 1:
    _check_bands(x, filters, settings)


def _check_bands(x, filters, settings):
  rows, stride = x.shape[0], settings.stride
  if settings.padding != "SAME":
    raise ValueError(f"{_OP}: bands need padding SAME")
  if rows % stride or rows // stride < filters.shape[0] // 2:
    raise ValueError(
      f"{_OP}: bands of {rows} rows are too short, or not of whole strides, "
      f"for filters {filters.shape} and stride {stride}"
    )


def _check_filters(x, filters, settings):
  layout = settings.layout
  channels = x.shape[channel_axis(layout)] // settings.bands
  if filters.ndim != 3 or filters.shape[2] != channels:
    raise ValueError(
      f"{_OP}: filters must have shape (k, k, {channels}) for x of shape "
      f"{x.shape} in {layout}, got {filters.shape}"
    )
  if filters.shape[0] != filters.shape[1] or filters.shape[0] % 2 == 0:
    raise ValueError(
      f"{_OP}: filters must be square and of odd size, got {filters.shape}"
    )
  if not jnp.issubdtype(filters.dtype, jnp.floating):
    raise ValueError(f"{_OP}: filters must be floating, got {filters.dtype}")
  if filters.dtype != x.dtype:
    raise ValueError(
      f"{_OP}: filters are {filters.dtype} but x is {x.dtype}; cast one of them"
    )
