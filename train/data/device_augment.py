"""The operations of `image_ops` for batches of images on the device.

Every operation is a table of 256 levels, a map of places, a blend and a square
to fill, of which at most one changes anything. So images with different
operations go through the same computation, and nothing depends on which
operations were drawn but numbers.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from .image_ops import FILL, LARGEST, ONE, OPS, SNAP, Op, fixed, whole_pixels

_ID = {name: i for i, name in enumerate(OPS)}
_IDENTITY = len(OPS)

# The products of AutoContrast, levels times 255 / (high - low), by high - low:
# made here, for a product and a sum on the device may be rounded as one.
_LEVELS = np.arange(256, dtype=np.float32)
_STRETCHED = (np.float32(255) / _LEVELS.clip(1)[:, None]) * _LEVELS


def encode_ops(
  ops: Sequence[Sequence[Op]], layers: int
) -> tuple[np.ndarray, np.ndarray]:
  """Write the operations of a batch as numbers for `augment_on_device`.

  Args:
    ops: Those of each of n images, at most `layers` each.
    layers: Length to fill up to, with an operation that does nothing.

  Returns:
    ids: int32 [n, layers], places in `OPS`, or 16 for nothing.
    values: float32 [n, layers, 3], what the operation is to know.

  >>> ids, values = encode_ops([[Op("Posterize", 4, 0, 0)], []], layers=2)
  >>> ids.tolist()
  [[4, 16], [16, 16]]
  >>> values[0].tolist()
  [[4.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
  """
  ids = np.full((len(ops), layers), _IDENTITY, np.int32)
  values = np.zeros((len(ops), layers, 3), np.float32)
  for row, drawn in enumerate(ops):
    for layer, op in enumerate(drawn):
      ids[row, layer] = _ID[op.name]
      values[row, layer] = _numbers(op)
  return ids, values


def augment_on_device(
  images: jax.Array, ids: jax.Array, values: jax.Array
) -> jax.Array:
  """Apply each image's operations; to be called under `jax.jit`.

  Equal to `image_ops.apply_op` in every bit where the factors of blends are
  multiples of 0.002, as for all levels with at most one decimal. For other
  factors up to 6 a few levels in a million are one higher or lower.

  Args:
    images: uint8 [n, s, s, 3], s at most `image_ops.LARGEST`.
    ids: int32 [n, layers], from `encode_ops`.
    values: float32 [n, layers, 3], from `encode_ops`.

  Returns:
    uint8 [n, s, s, 3].

  Raises:
    ValueError: the images are too large.

  >>> ids, values = encode_ops([[Op("Invert", 0, 0, 0)], []], layers=1)
  >>> images = jnp.full((2, 1, 1, 3), 100, jnp.uint8)
  >>> jax.jit(augment_on_device)(images, ids, values)[:, 0, 0].tolist()
  [[155, 155, 155], [100, 100, 100]]
  """
  if images.shape[1] > LARGEST:
    raise ValueError(
      f"{images.shape}: a side may have {LARGEST} pixels at most"
    )

  def layer(images: jax.Array, drawn: tuple) -> tuple[jax.Array, None]:
    return jax.vmap(_apply)(images, *drawn), None

  drawn = (jnp.swapaxes(ids, 0, 1), jnp.swapaxes(values, 0, 1))
  return jax.lax.scan(layer, images, drawn)[0]


def _numbers(op: Op) -> tuple[float, float, float]:
  # Coordinates are whole numbers, so that no rounding of the device counts.
  match op.name:
    case "Rotate":
      radians = math.radians(op.value)
      return fixed(math.cos(radians)), fixed(math.sin(radians)), 0
    case "ShearX" | "ShearY":
      return fixed(op.value), 0, 0
    case "TranslateX" | "TranslateY":
      return whole_pixels(op.value), 0, 0
    case _:
      return op.value, op.y, op.x


def _apply(image: jax.Array, op: jax.Array, values: jax.Array) -> jax.Array:
  """Apply operation `op`, an id, with three `values` to uint8 [s, s, 3]."""
  image = jax.vmap(_look_up, (None, None, 2), 2)(op, values[0], image)
  image = _move(image, op, values)
  image = _blend(_degenerate(image, op), image, _factor(op, values[0]))
  return _fill(image, op, values)


def _look_up(op: jax.Array, value: jax.Array, plane: jax.Array) -> jax.Array:
  """Apply those that are a table to one channel, [s, s]."""
  plane = plane.astype(jnp.int32)
  value = value.astype(jnp.int32)
  levels = jnp.arange(256)
  tables = {
    "AutoContrast": _stretching(plane),
    "Equalize": _equalizing(plane),
    "Invert": 255 - levels,
    "Posterize": levels & (256 - (256 >> value)),
    "Solarize": jnp.where(levels < value, levels, 255 - levels),
    "SolarizeAdd": jnp.where(levels < 128, levels + value, levels),
  }
  table = jnp.select(
    [op == _ID[name] for name in tables], [*tables.values()], levels
  )
  return table.clip(0, 255).astype(jnp.uint8)[plane]


def _stretching(plane: jax.Array) -> jax.Array:
  low, high = plane.min(), plane.max()
  products = jnp.asarray(_STRETCHED)[high - low]
  table = (products - products[low]).clip(0, 255).astype(jnp.int32)
  return jnp.where(low == high, jnp.arange(256), table)


def _equalizing(plane: jax.Array) -> jax.Array:
  counts = jnp.zeros(256, jnp.int32).at[plane].add(1)
  step = (plane.size - counts[plane.max()]) // 255
  below = counts.cumsum() - counts
  table = (below + step // 2) // jnp.maximum(step, 1)
  return jnp.where(step == 0, jnp.arange(256), table)


def _move(image: jax.Array, op: jax.Array, values: jax.Array) -> jax.Array:
  """Apply those that move pixels: a gather, by places in 1/65536 pixels."""
  first, second = values[0].astype(jnp.int32), values[1].astype(jnp.int32)

  def where(name: str, value: jax.Array, otherwise: jax.Array | int = 0):
    return jnp.where(op == _ID[name], value, otherwise)

  last = len(image) - 1
  cos, sin = where("Rotate", first, ONE), where("Rotate", second)
  # The centre stays where it is.
  offset_x = (last * (ONE - cos + sin) + ONE) // 2
  offset_y = (last * (ONE - cos - sin) + ONE) // 2
  offset_x += where("TranslateX", first) * ONE
  offset_y += where("TranslateY", first) * ONE
  y, x = jnp.arange(last + 1)[:, None], jnp.arange(last + 1)[None]
  from_x = cos * x + (where("ShearX", first) - sin) * y + offset_x >> 16
  from_y = (where("ShearY", first) + sin) * x + cos * y + offset_y >> 16
  moved = image[from_y.clip(0, last), from_x.clip(0, last)]
  inside = (from_y.clip(0, last) == from_y) & (from_x.clip(0, last) == from_x)
  return jnp.where(inside[..., None], moved, jnp.uint8(FILL))


def _factor(op: jax.Array, value: jax.Array) -> jax.Array:
  names = ("Color", "Contrast", "Brightness", "Sharpness")
  blends = jnp.isin(op, jnp.array([_ID[name] for name in names]))
  return jnp.where(blends, value, 1)


def _degenerate(image: jax.Array, op: jax.Array) -> jax.Array:
  """What those that blend start from, at a factor of 0."""
  mean = min(len(image) ** 2 // 256, 255)
  images = {
    "Color": _grey(image),
    "Contrast": jnp.full_like(image, mean),
    "Sharpness": _smooth(image),
  }
  return jnp.select(
    [op == _ID[name] for name in images],
    [*images.values()],
    jnp.zeros_like(image),
  )


def _grey(image: jax.Array) -> jax.Array:
  r, g, b = (image[..., channel].astype(jnp.int32) for channel in range(3))
  grey = (2989 * r + 5870 * g + 1140 * b) * 511 // 5_100_000
  return jnp.broadcast_to(grey[..., None], image.shape).astype(jnp.uint8)


def _smooth(image: jax.Array) -> jax.Array:
  if len(image) < 3:
    return image
  wide = image.astype(jnp.int32)
  rows = wide[:-2] + wide[1:-1] + wide[2:]
  box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
  inner = (box + 4 * wide[1:-1, 1:-1]) // 13
  return image.at[1:-1, 1:-1].set(inner.astype(jnp.uint8))


def _blend(a: jax.Array, b: jax.Array, factor: jax.Array) -> jax.Array:
  a, b = a.astype(jnp.float32), b.astype(jnp.float32)
  return (a + factor * (b - a) + SNAP).clip(0, 255).astype(jnp.uint8)


def _fill(image: jax.Array, op: jax.Array, values: jax.Array) -> jax.Array:
  size = len(image)
  half = jnp.where(op == _ID["Cutout"], values[0], 0).astype(jnp.int32)
  centre = (values[1:] * size).astype(jnp.int32)
  places = jnp.arange(size)
  rows = (centre[0] - half <= places) & (places < centre[0] + half)
  columns = (centre[1] - half <= places) & (places < centre[1] + half)
  cut = rows[:, None] & columns[None]
  return jnp.where(cut[..., None], jnp.uint8(FILL), image)
