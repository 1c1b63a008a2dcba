"""Order of the axes of four-dimensional activations.

The ops compute in HWNC or HWCN. They transpose NHWC to one of them and back,
which XLA:TPU turns into a choice of layout.
"""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from ..tpu.registers import LANES
from .bands import channels_of_band

Layout = Literal["HWNC", "HWCN", "NHWC"]


def batch_axis(layout: Layout) -> int:
  """Return the axis of the images."""
  return layout.index("N")


def channel_axis(layout: Layout) -> int:
  """Return the axis of the channels."""
  return layout.index("C")


def inner_layout(layout: Layout) -> Layout:
  """Return the layout in which an op computes."""
  return "HWNC" if layout == "NHWC" else layout


def batch_fills_lanes(x: Any, layout: Layout) -> bool:
  """Tell if a TPU keeps an activation in NHWC best with its batch in lanes.

  XLA does so by itself, and images whose channels do not fill the lanes take
  less memory. A kernel of another layout would need copies.
  """
  return layout == "NHWC" and x.shape[0] % LANES == 0


def to_inner(x: jax.Array, layout: Layout, inner: Layout = "HWNC") -> jax.Array:
  """Transpose an activation in NHWC to the layout in which an op computes."""
  return _transposed(x, layout, inner) if layout == "NHWC" else x


def from_inner(
  x: jax.Array, layout: Layout, inner: Layout = "HWNC"
) -> jax.Array:
  """Transpose an activation back to NHWC, if that is the caller's layout."""
  return _transposed(x, inner, layout) if layout == "NHWC" else x


def shape_of_inner(x: Any, layout: Layout, inner: Layout = "HWNC") -> Any:
  """Describe the result of `to_inner`, for the selection."""
  if layout != "NHWC":
    return x
  return jax.eval_shape(lambda x: to_inner(x, layout, inner), x)


def _transposed(x: jax.Array, layout: Layout, other: Layout) -> jax.Array:
  return jnp.transpose(x, [layout.index(axis) for axis in other])


def sum_axes(layout: Layout) -> tuple[int, int, int]:
  """Return all axes but that of the channels."""
  return (0, 1, batch_axis(layout))


def per_channel(vector: jax.Array, layout: Layout) -> jax.Array:
  """Reshape a `[c]` vector to broadcast against an activation."""
  shape = [1, 1, 1, 1]
  shape[channel_axis(layout)] = vector.shape[0]
  return vector.reshape(shape)


def check_image(
  op: str,
  x: jax.Array,
  layout: Layout,
  bands: int = 1,
  layouts: Sequence[str] = ("HWNC", "HWCN", "NHWC"),
  **vectors: jax.Array | None,
) -> None:
  """Check an activation and the per-channel vectors that go with it.

  Raises:
    ValueError: A shape or dtype does not fit.
  """
  if layout not in layouts:
    *names, last = layouts
    raise ValueError(
      f"{op}: layout must be {', '.join(names)} or {last}, got {layout!r}"
    )
  if x.ndim != 4:
    raise ValueError(
      f"{op}: x must have 4 dimensions ({layout}), got shape {x.shape}"
    )
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(f"{op}: x must be of a floating dtype, got {x.dtype}")
  if 0 in x.shape:
    raise ValueError(f"{op}: x is empty, shape {x.shape}")
  if bands != 1 and layout != "HWNC":
    raise ValueError(
      f"{op}: bands need layout HWNC, got {bands} bands in {layout}"
    )
  channels = x.shape[channel_axis(layout)]
  if bands != 1:
    channels = channels_of_band(op, x, bands)
  for name, vector in vectors.items():
    if vector is not None and vector.shape != (channels,):
      raise ValueError(
        f"{op}: {name} must have shape ({channels},) for x of shape {x.shape} "
        f"in {layout}{_in_bands(bands)}, got {vector.shape}"
      )
    if vector is not None and vector.dtype != jnp.float32:
      raise ValueError(f"{op}: {name} must be float32, got {vector.dtype}")


def _in_bands(bands: int) -> str:
  return f" and {bands} bands" if bands != 1 else ""
