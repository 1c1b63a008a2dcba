"""Public op: the moments of each channel."""

import jax

from ..common.bands import merge_bands, over_bands
from ..common.explicit_shards import batch_shards, over_shards
from ..common.layout import (
  Layout,
  check_image,
  inner_layout,
  per_channel,
  to_inner,
)
from ..common.moment_sums import with_static_count
from ..common.moments import Moments
from ..selection.selection import Selection, the_only_one
from .vjp import moments_about


def channel_moments(
  x: jax.Array,
  *,
  pivot: jax.Array | None = None,
  layout: Layout = "HWNC",
  bands: int = 1,
) -> Moments:
  """Compute count, mean and sum of squared deviations of each channel.

  Equivalent to `Moments(n, mean, jnp.square(x - mean).sum((0, 1, 2)))` with
  `mean = x.mean((0, 1, 2))`, but after its middle row it reads x only once.

  Args:
    x: Activation, floating-point `[h, w, n, c]` (HWNC), `[h, w, c, n]` (HWCN)
      or `[n, h, w, c]` (NHWC).
    pivot: Shift near the mean of each channel, float32 `[c]`; the op sums the
      deviations from it. None takes the mean of x's middle row. A shift that
      does not depend on x lets XLA sum in the loop that makes x. It changes
      only the rounding of the result, and its gradient is zero.
    layout: Order of x's axes, 'HWNC', 'HWCN' or 'NHWC'.
    bands: Number of bands of x; see `to_bands`.

  Returns:
    Moments, float32 `[c]`.

  Raises:
    ValueError: x has another rank, an integer dtype, or no elements; or the
      pivot has another shape or dtype.

  Source: shifted data, in Chan, Golub and LeVeque, "Algorithms for computing
  the sample variance", The American Statistician 37(3), 1983.

  >>> import jax.numpy as jnp
  >>> count, mean, m2 = channel_moments(jnp.arange(4.0).reshape(4, 1, 1, 1))
  >>> float(count), float(mean[0]), float(m2[0])
  (4.0, 1.5, 5.0)
  """
  describe(x, pivot, layout, bands)
  if axes := batch_shards("channel_moments", x, layout):
    return over_shards(
      lambda x, pivot: channel_moments(
        x, pivot=pivot, layout=layout, bands=bands
      ),
      *(axes, layout, x, pivot),
    )
  x, layout = to_inner(x, layout), inner_layout(layout)
  shift = None
  if pivot is not None:
    shift = over_bands(jax.lax.stop_gradient(pivot), bands)
    shift = per_channel(shift, layout)
  moments = moments_about(x, shift, layout)
  return with_static_count(merge_bands(moments, bands), x)


def describe(
  x: jax.Array, pivot: jax.Array | None, layout: Layout, bands: int
) -> Selection:
  """Check the arguments and select the implementation."""
  check_image("channel_moments", x, layout, bands, pivot=pivot)
  return the_only_one()
