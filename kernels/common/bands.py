"""Bands: the parts of an image's height, side by side among the channels.

A TPU's register holds 128 channels, and memory is padded to them: 24 channels
take the room and the time of 128. Cut in four bands, an image of `h` rows and
24 channels is one of `h / 4` rows and 96. Elementwise ops and sums do not mind,
1x1 convolutions take a block-diagonal matrix, and convolutions have to look
beyond a band's edge, into the one above or below.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .moments import Moments


def to_bands(x: jax.Array, bands: int) -> jax.Array:
  """Lays the `bands` parts of the height side by side among the channels.

  Args:
    x: `[h, w, n, c]`.
    bands: A divisor of h.

  Returns:
    `[h / bands, w, n, bands * c]`: the first c channels are the rows from 0 on,
    the next those from `h / bands` on.

  Raises:
    ValueError: bands does not divide h.

  >>> import jax.numpy as jnp
  >>> to_bands(jnp.arange(4).reshape(4, 1, 1, 1), 2)[:, 0, 0].tolist()
  [[0, 2], [1, 3]]
  """
  if bands < 1 or x.shape[0] % bands:
    raise ValueError(
      f"to_bands: {x.shape[0]} rows of x {x.shape} cannot be cut in {bands} "
      "bands of one size"
    )
  return jnp.concatenate(jnp.split(x, bands, axis=0), axis=3)


def from_bands(x: jax.Array, bands: int) -> jax.Array:
  """The inverse of `to_bands`.

  Args:
    x: `[h / bands, w, n, bands * c]`.
    bands: How many there are.

  Returns:
    `[h, w, n, c]`.

  Raises:
    ValueError: bands does not divide the channels.

  >>> import jax.numpy as jnp
  >>> from_bands(jnp.arange(4).reshape(2, 1, 1, 2), 2).ravel().tolist()
  [0, 2, 1, 3]
  """
  channels_of_band("from_bands", x, bands)
  return jnp.concatenate(jnp.split(x, bands, axis=3), axis=0)


@jax.named_scope("change_bands")
def change_bands(x: jax.Array, have: int, want: int) -> jax.Array:
  """The same image in another number of bands.

  Where one number divides the other, neither of them 1, a matrix of zeros and
  ones moves the channels: on v3 114x114x32 of 40 channels go from 6 bands to 3
  and back in 800 us, where cutting and concatenating takes 2,200 (estimates,
  bench/results/step.md). Infinity times zero is NaN: in those cases an image
  with one infinite value gets more than that.

  Args:
    x: `[h / have, w, n, have * c]`.
    have: Bands of x.
    want: Of the result, a divisor of h.

  Returns:
    `[h / want, w, n, want * c]`.

  Raises:
    ValueError: have does not divide the channels, or want not h.

  >>> import jax.numpy as jnp
  >>> change_bands(jnp.arange(4.0).reshape(1, 1, 1, 4), 4, 2)[:, 0, 0].tolist()
  [[0.0, 2.0], [1.0, 3.0]]
  """
  if have == want:
    return x
  fewer, more = sorted((have, want))
  if fewer == 1 or more % fewer:
    return to_bands(from_bands(x, have), want)
  channels = channels_of_band("change_bands", x, have)
  parts = _parts_of_bands(more // fewer, fewer, channels)
  if want == fewer:
    moved = [_times(x, part) for part in parts]
    return jnp.concatenate(moved, axis=0)
  rows = jnp.split(x, len(parts), axis=0)
  # Each sum has one term that is not zero.
  moved = [_times(r, part.T) for r, part in zip(rows, parts, strict=True)]
  return sum(moved[1:], moved[0])


def channels_of_band(op: str, x: jax.Array, bands: int) -> int:
  """The channels of the image itself.

  Raises:
    ValueError: bands does not divide x's channels.
  """
  if bands < 1 or x.shape[3] % bands:
    raise ValueError(
      f"{op}: {x.shape[3]} channels of x {x.shape} are not those of {bands} "
      "bands"
    )
  return x.shape[3] // bands


def over_bands(vector: jax.Array, bands: int) -> jax.Array:
  """What is the same for all bands: `[..., c]` to `[..., bands * c]`.

  >>> import jax.numpy as jnp
  >>> over_bands(jnp.arange(2), 2).tolist()
  [0, 1, 0, 1]
  """
  return vector if bands == 1 else jnp.tile(vector, bands)


def sum_bands(x: jax.Array, bands: int) -> jax.Array:
  """The sum of what belongs to each band: `[..., bands * c]` to `[..., c]`."""
  if bands == 1:
    return x
  return x.reshape(*x.shape[:-1], bands, -1).sum(-2)


def merge_bands(moments: Moments, bands: int) -> Moments:
  """The moments of an image, from those of its bands, `[bands * c]`."""
  if bands == 1:
    return moments
  mean, m2 = (v.reshape(bands, -1) for v in (moments.mean, moments.m2))
  merged = mean.mean(0)
  between = moments.count * jnp.square(mean - merged[None]).sum(0)
  return Moments(moments.count * bands, merged, m2.sum(0) + between)


def halo_rows(
  x: jax.Array, bands: int, above: int, below: int
) -> dict[str, jax.Array]:
  """The rows that each band's neighbours have next to it.

  Args:
    x: `[h / bands, w, n, bands * c]`.
    bands: How many there are.
    above: Rows before a band's first.
    below: Rows after its last.

  Returns:
    'above', `[above, w, n, bands * c]`, with zeros for the first band, and
    'below' likewise, with zeros for the last; where there are any.
  """
  c = x.shape[3] // bands
  rows = {}
  if above:
    rows["above"] = _moved(x[x.shape[0] - above :], c)
  if below:
    rows["below"] = _moved(x[:below], -c)
  return rows


def halo_masks(channels: int, bands: int) -> dict[str, jax.Array]:
  """Ones where `halo_rows` has rows of the image, `[channels]` float32."""
  c = channels // bands
  band = lax.iota(jnp.int32, channels) // c
  return {
    "above": (band > 0).astype(jnp.float32),
    "below": (band < bands - 1).astype(jnp.float32),
  }


def _moved(x, channels: int):
  """Each channel goes `channels` further; zeros take the places left."""
  none = (0, 0, 0)
  zero = jnp.zeros((), x.dtype)
  return lax.pad(x, zero, [none, none, none, (channels, -channels, 0)])


def _parts_of_bands(count: int, bands: int, channels: int) -> np.ndarray:
  """Cuts each of `bands` bands in `count`.

  Returns:
    `[count, count * bands * channels, bands * channels]`, zeros and ones: the
    product of the smaller bands, side by side, with the k-th of these is the
    k-th parts of the larger ones, side by side.
  """
  identity = np.eye(bands * count * channels, dtype=np.float32)
  shape = (bands, count, channels, bands * count * channels)
  parts = identity.reshape(shape).swapaxes(0, 1)
  return parts.reshape(count, bands * channels, -1).swapaxes(1, 2)


def _times(x, matrix):
  # Exact: in float32 a TPU would round x to bfloat16 otherwise.
  return jnp.matmul(x, matrix.astype(x.dtype), precision=lax.Precision.HIGHEST)
