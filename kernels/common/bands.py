"""Bands: parts of an image's height, side by side in the channel axis.

A TPU register has 128 lanes for channels, and XLA pads arrays to them: 24
channels take as much memory and time as 128. Cut into four bands, an image of
`h` rows and 24 channels becomes one of `h / 4` rows and 96 channels.
Elementwise ops and sums stay the same, 1x1 convolutions take a block-diagonal
matrix, and larger convolutions need halo rows from the bands above and below.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .moments import Moments


def to_bands(x: jax.Array, bands: int) -> jax.Array:
  """Cut an image into bands, side by side in the channel axis.

  Args:
    x: Image, `[h, w, n, c]`.
    bands: Number of bands, a divisor of h.

  Returns:
    Banded image, `[h / bands, w, n, bands * c]`. The first c channels hold the
    rows from 0 on, the next c channels the rows from `h / bands` on.

  Raises:
    ValueError: The number of bands does not divide h.

  >>> import jax.numpy as jnp
  >>> to_bands(jnp.arange(4).reshape(4, 1, 1, 1), 2)[:, 0, 0].tolist()
  [[0, 2], [1, 3]]
  """
  if bands < 1 or x.shape[0] % bands:
    raise ValueError(
      f"to_bands: {x.shape[0]} rows of x {x.shape} cannot be cut in {bands} "
      "bands of equal size; the number of bands must divide the rows"
    )
  return jnp.concatenate(jnp.split(x, bands, axis=0), axis=3)


def from_bands(x: jax.Array, bands: int) -> jax.Array:
  """Join the bands of an image; the inverse of `to_bands`.

  Args:
    x: Banded image, `[h / bands, w, n, bands * c]`.
    bands: Number of bands of x.

  Returns:
    Image, `[h, w, n, c]`.

  Raises:
    ValueError: The number of bands does not divide the channels.

  >>> import jax.numpy as jnp
  >>> from_bands(jnp.arange(4).reshape(2, 1, 1, 2), 2).ravel().tolist()
  [0, 2, 1, 3]
  """
  channels_of_band("from_bands", x, bands)
  return jnp.concatenate(jnp.split(x, bands, axis=3), axis=0)


@jax.named_scope("change_bands")
def change_bands(x: jax.Array, have: int, want: int) -> jax.Array:
  """Cut the same image into another number of bands.

  If one number divides the other and neither is 1, a matmul with zeros and ones
  moves the channels. On v3 this takes 114x114x32 images of 40 channels from 6
  bands to 3 and back in 800 us; cutting and concatenating takes 2,200 us
  (estimates, bench/results/step.md). Infinity times zero is NaN, so an infinite
  value spreads to other channels and bands in this case.

  Args:
    x: Banded image, `[h / have, w, n, have * c]`.
    have: Number of bands of x.
    want: Number of bands of the result, a divisor of h.

  Returns:
    Banded image, `[h / want, w, n, want * c]`.

  Raises:
    ValueError: `have` does not divide the channels, or `want` does not divide
      h.

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
    moved = [_matmul(x, part) for part in parts]
    return jnp.concatenate(moved, axis=0)
  rows = jnp.split(x, len(parts), axis=0)
  # Each sum has one nonzero term, so the result is exact.
  moved = [_matmul(r, part.T) for r, part in zip(rows, parts, strict=True)]
  return sum(moved[1:], moved[0])


def channels_of_band(op: str, x: jax.Array, bands: int) -> int:
  """Count the channels of one band, which are those of the image.

  Raises:
    ValueError: The number of bands does not divide x's channels.
  """
  if bands < 1 or x.shape[3] % bands:
    raise ValueError(
      f"{op}: {x.shape[3]} channels of x {x.shape} do not divide into {bands} "
      "bands"
    )
  return x.shape[3] // bands


def over_bands(vector: jax.Array, bands: int) -> jax.Array:
  """Repeat a per-channel vector for each band.

  Args:
    vector: Values of each channel, `[..., c]`.
    bands: Number of bands.

  Returns:
    Values, `[..., bands * c]`.

  >>> import jax.numpy as jnp
  >>> over_bands(jnp.arange(2), 2).tolist()
  [0, 1, 0, 1]
  """
  return vector if bands == 1 else jnp.tile(vector, bands)


def sum_bands(x: jax.Array, bands: int) -> jax.Array:
  """Sum per-channel values over bands: `[..., bands * c]` to `[..., c]`."""
  if bands == 1:
    return x
  return x.reshape(*x.shape[:-1], bands, -1).sum(-2)


def merge_bands(moments: Moments, bands: int) -> Moments:
  """Merge the moments of bands, `[bands * c]`, to those of the image, `[c]`."""
  if bands == 1:
    return moments
  mean, m2 = (v.reshape(bands, -1) for v in (moments.mean, moments.m2))
  merged = mean.mean(0)
  between = moments.count * jnp.square(mean - merged[None]).sum(0)
  return Moments(moments.count * bands, merged, m2.sum(0) + between)


def halo_rows(
  x: jax.Array, bands: int, above: int, below: int
) -> dict[str, jax.Array]:
  """Take the rows next to each band from the bands above and below.

  Args:
    x: Banded image, `[h / bands, w, n, bands * c]`.
    bands: Number of bands of x.
    above: Number of rows before a band's first row.
    below: Number of rows after a band's last row.

  Returns:
    'above' to `[above, w, n, bands * c]`, with zeros for the first band, and
    'below' to `[below, w, n, bands * c]`, with zeros for the last band; a key
    is missing if its number of rows is 0.
  """
  c = x.shape[3] // bands
  rows = {}
  if above:
    rows["above"] = _shifted(x[x.shape[0] - above :], c)
  if below:
    rows["below"] = _shifted(x[:below], -c)
  return rows


def halo_masks(channels: int, bands: int) -> dict[str, jax.Array]:
  """Make masks of the channels for which `halo_rows` has rows of the image.

  Args:
    channels: Number of channels of all bands.
    bands: Number of bands.

  Returns:
    'above' and 'below' to float32 `[channels]`, 1 inside the image and 0
    outside.
  """
  c = channels // bands
  band = lax.iota(jnp.int32, channels) // c
  return {
    "above": (band > 0).astype(jnp.float32),
    "below": (band < bands - 1).astype(jnp.float32),
  }


def _shifted(x, channels: int):
  """Shift the channel axis, and fill up with zeros."""
  none = (0, 0, 0)
  zero = jnp.zeros((), x.dtype)
  return lax.pad(x, zero, [none, none, none, (channels, -channels, 0)])


def _parts_of_bands(count: int, bands: int, channels: int) -> np.ndarray:
  """Make matrices that select parts of bands.

  Args:
    count: Number of parts of a band.
    bands: Number of bands.
    channels: Channels of the image.

  Returns:
    Zeros and ones, `[count, count * bands * channels, bands * channels]`. The
    k-th matrix takes the channels of `count * bands` bands to those of the k-th
    part of each of `bands` bands.
  """
  identity = np.eye(bands * count * channels, dtype=np.float32)
  shape = (bands, count, channels, bands * count * channels)
  parts = identity.reshape(shape).swapaxes(0, 1)
  return parts.reshape(count, bands * channels, -1).swapaxes(1, 2)


def _matmul(x, matrix):
  # At the default precision a TPU would round float32 to bfloat16.
  return jnp.matmul(x, matrix.astype(x.dtype), precision=lax.Precision.HIGHEST)
