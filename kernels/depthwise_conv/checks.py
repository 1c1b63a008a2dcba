"""Checks of a call's arguments."""

import math
from collections.abc import Container
from typing import Any

import jax.numpy as jnp

from ..common.layout import channel_axis
from .settings import Settings

OP = "depthwise_conv_bn"


def check_filters(x: Any, filters: Any, settings: Settings) -> None:
  """Check shape and dtype of the filters for x in the caller's layout.

  Raises:
    ValueError: They do not fit x.
  """
  layout = settings.layout
  channels = x.shape[channel_axis(layout)] // settings.bands
  if filters.ndim not in (3, 4) or filters.shape[2] != channels:
    raise ValueError(
      f"{OP}: filters must have shape (kh, kw, {channels}) or "
      f"(kh, kw, {channels}, m) for x of shape {x.shape} in {layout}, got "
      f"{filters.shape}"
    )
  if filters.ndim == 4 and settings.bands != 1:
    raise ValueError(
      f"{OP}: bands need filters (kh, kw, {channels}), got {filters.shape}"
    )
  if 0 in filters.shape:
    raise ValueError(f"{OP}: filters are empty, shape {filters.shape}")
  if not jnp.issubdtype(filters.dtype, jnp.floating):
    raise ValueError(f"{OP}: filters must be floating, got {filters.dtype}")
  if filters.dtype != x.dtype:
    raise ValueError(
      f"{OP}: filters are {filters.dtype} but x is {x.dtype}; cast one of them"
    )


def check_bias(x: Any, filters: Any, bias: Any) -> None:
  """Check shape and dtype of the bias, which may be None.

  Raises:
    ValueError: It does not fit the filters.
  """
  if bias is None:
    return
  channels = math.prod(filters.shape[2:])
  if bias.shape != (channels,) or bias.dtype != jnp.float32:
    raise ValueError(
      f"{OP}: bias must be float32 ({channels},) for x of shape {x.shape} and "
      f"filters {filters.shape}, got {bias.dtype} {bias.shape}"
    )


def check_windows(x: Any, filters: Any, settings: Settings) -> None:
  """Check stride, padding, dilation and bands for x in HWNC or HWCN.

  Raises:
    ValueError: One of them is invalid, or the filters are larger than x.
  """
  if not _is_pair(settings.stride, (1, 2)):
    raise ValueError(
      f"{OP}: stride must be 1, 2 or a pair of them, got {settings.stride!r} "
      f"for x of shape {x.shape} and filters {filters.shape}"
    )
  if not _is_pair(settings.dilation, range(1, 2**16)):
    raise ValueError(
      f"{OP}: dilation must be a positive integer or a pair of them, got "
      f"{settings.dilation!r}"
    )
  if not _is_padding(settings.padding):
    raise ValueError(
      f"{OP}: padding must be 'SAME', 'VALID', an integer of at least 0 or "
      f"((top, bottom), (left, right)), got {settings.padding!r}"
    )
  if min(axis.out for axis in settings.windows(x, filters)) < 1:
    raise ValueError(
      f"{OP}: x of shape {x.shape} with padding {settings.padding!r} is "
      f"smaller than the filters {filters.shape} with dilation "
      f"{settings.dilation}"
    )
  if settings.bands != 1:
    _check_bands(x, filters, settings)


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


def _check_bands(x: Any, filters: Any, settings: Settings) -> None:
  rows, stride = x.shape[0], settings.strides[0]
  if rows % stride or rows // stride < filters.shape[0] // 2:
    raise ValueError(
      f"{OP}: bands of {rows} rows are too short, or not of whole strides, "
      f"for filters {filters.shape} and stride {settings.stride}"
    )
  (low, out), *_ = ((x.low, x.out) for x in settings.windows(x, filters))
  if out != rows // stride or low > filters.shape[0] // 2:
    raise ValueError(
      f"{OP}: bands need padding by which y has h / stride rows, got padding "
      f"{settings.padding!r} for filters {filters.shape}"
    )
  if settings.dilations[0] != 1:
    raise ValueError(f"{OP}: bands need dilation 1, got {settings.dilation}")
