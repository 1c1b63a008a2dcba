"""The operations of `image_ops` for batches of images on the device.

Every image goes through a table of 256 levels, a warp, a blend and a square to
fill. An operation sets the parameters so that at most one of the four changes
the image. All images share one computation, and the program does not depend on
which operations were drawn.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from .image_ops import (
  FILL,
  GREY_WEIGHTS,
  LARGEST,
  OPS,
  SMOOTHING,
  Op,
  rotation,
)

_ID = {name: i for i, name in enumerate(OPS)}
_IDENTITY = len(OPS)

# AutoContrast's products, levels times 255 / (high - low), by high - low. NumPy
# computes them, because a device may round a product and a sum as one.
_LEVELS = np.arange(256, dtype=np.float32)
_STRETCHED = (np.float32(255) / _LEVELS.clip(1)[:, None]) * _LEVELS


def encode_ops(
  ops: Sequence[Sequence[Op]], layers: int
) -> tuple[np.ndarray, np.ndarray]:
  """Encode the operations of a batch as arrays for `augment_on_device`.

  Args:
    ops: Operations of each of n images, at most `layers` each.
    layers: Length to pad each list to, with an operation that does nothing.

  Returns:
    ids: int32 [n, layers], indices into `OPS`; 16 does nothing.
    values: float32 [n, layers, 3], parameters of the operations.

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
  """Apply each image's operations; call it under `jax.jit`.

  The result equals `image_ops.apply_op`, and so TensorFlow 1.15, bit for bit:
  measured on a CPU. No rounding is left to the compiler.

  Args:
    images: Pixels, uint8 [n, s, s, 3], s at most `image_ops.LARGEST`.
    ids: Operations, int32 [n, layers], from `encode_ops`.
    values: Parameters, float32 [n, layers, 3], from `encode_ops`.

  Returns:
    Pixels, uint8 [n, s, s, 3].

  Raises:
    ValueError: The images are too large.

  >>> ids, values = encode_ops([[Op("Invert", 0, 0, 0)], []], layers=1)
  >>> images = jnp.full((2, 1, 1, 3), 100, jnp.uint8)
  >>> jax.jit(augment_on_device)(images, ids, values)[:, 0, 0].tolist()
  [[155, 155, 155], [100, 100, 100]]
  """
  if images.shape[1] > LARGEST:
    raise ValueError(
      f"images have the shape {images.shape}, but a side has at most {LARGEST} "
      "pixels; lower the resolution"
    )

  def layer(images: jax.Array, drawn: tuple) -> tuple[jax.Array, None]:
    return jax.vmap(_apply)(images, *drawn), None

  drawn = (jnp.swapaxes(ids, 0, 1), jnp.swapaxes(values, 0, 1))
  return jax.lax.scan(layer, images, drawn)[0]


def _numbers(op: Op) -> tuple[float, float, float]:
  if op.name == "Rotate":
    cos, sin = rotation(op.value)
    return float(cos), float(sin), 0
  return op.value, op.y, op.x


def _product(a: jax.Array, b: jax.Array | np.float32) -> jax.Array:
  """Multiply, and round the product before a sum.

  A compiler fuses a product and a sum into one operation that rounds once,
  where TensorFlow rounds twice. The bound, far above every product here, keeps
  the two operations apart.
  """
  return jnp.minimum(a * b, 2.0**30)


def _apply(image: jax.Array, op: jax.Array, values: jax.Array) -> jax.Array:
  """Apply the operation with id `op` and three `values` to uint8 [s, s, 3]."""
  image = jax.vmap(_look_up, (None, None, 2), 2)(op, values[0], image)
  image = _warp(image, op, values)
  image = _blend(_degenerate(image, op), image, _factor(op, values[0]))
  return _fill(image, op, values)


def _look_up(op: jax.Array, value: jax.Array, plane: jax.Array) -> jax.Array:
  """Apply the operations that are a table to one channel, [s, s]."""
  plane = plane.astype(jnp.int32)
  value = value.astype(jnp.int32)
  levels = jnp.arange(256)
  shift = jnp.minimum((8 - value) % 256, 7)
  tables = {
    "AutoContrast": _stretching(plane),
    "Equalize": _equalizing(plane),
    "Invert": 255 - levels,
    # TensorFlow casts bit counts and thresholds to uint8.
    "Posterize": levels >> shift << shift,
    "Solarize": jnp.where(levels < value % 256, levels, 255 - levels),
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


def _warp(image: jax.Array, op: jax.Array, values: jax.Array) -> jax.Array:
  """Apply the operations that move pixels: gather the nearest source pixels."""

  def if_op(name: str, value: jax.Array, otherwise: jax.Array | float = 0.0):
    return jnp.where(op == _ID[name], value, otherwise)

  last = jnp.float32(len(image) - 1)
  cos, sin = if_op("Rotate", values[0], 1.0), if_op("Rotate", values[1])
  # The offsets keep the centre in place.
  offset_x = (last - (_product(cos, last) - _product(sin, last))) / 2
  offset_y = (last - (_product(sin, last) + _product(cos, last))) / 2
  offset_x += if_op("TranslateX", values[0])
  offset_y += if_op("TranslateY", values[0])
  places = jnp.arange(len(image), dtype=jnp.float32)
  y, x = places[:, None], places[None]
  from_x = _product(cos, x) + _product(if_op("ShearX", values[0], -sin), y)
  from_y = _product(if_op("ShearY", values[0], sin), x) + _product(cos, y)
  row, inside_rows = _nearest(from_y + offset_y, len(image))
  column, inside_columns = _nearest(from_x + offset_x, len(image))
  inside = inside_rows & inside_columns
  return jnp.where(inside[..., None], image[row, column], jnp.uint8(FILL))


def _nearest(place: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
  """Round halves away from zero and clip to [0, size).

  Returns:
    The index, and True where clipping did not change it.
  """
  nearest = jax.lax.round(place).astype(jnp.int32)
  clipped = nearest.clip(0, size - 1)
  return clipped, clipped == nearest


def _factor(op: jax.Array, value: jax.Array) -> jax.Array:
  names = ("Color", "Contrast", "Brightness", "Sharpness")
  blends = jnp.isin(op, jnp.array([_ID[name] for name in names]))
  return jnp.where(blends, value, 1)


def _degenerate(image: jax.Array, op: jax.Array) -> jax.Array:
  """Compute the image that the operations that blend give at a factor of 0."""
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
  shares = _product(image.astype(jnp.float32), np.float32(1 / 255))
  red, green, blue = (
    _product(shares[..., channel], weight)
    for channel, weight in enumerate(GREY_WEIGHTS)
  )
  grey = (red + green + blue) * np.float32(255.5)
  return jnp.broadcast_to(grey[..., None], image.shape).astype(jnp.uint8)


def _smooth(image: jax.Array) -> jax.Array:
  size = len(image)
  if size < 3:
    return image
  wide = image.astype(jnp.float32)
  neighbour, centre = (_product(wide, weight) for weight in SMOOTHING)
  inner = jnp.zeros((size - 2, size - 2, 3), jnp.float32)
  # The order matters, because each sum is rounded.
  for y in range(3):
    for x in range(3):
      products = centre if y == x == 1 else neighbour
      inner += products[y : y + size - 2, x : x + size - 2]
  return image.at[1:-1, 1:-1].set(inner.astype(jnp.uint8))


def _blend(a: jax.Array, b: jax.Array, factor: jax.Array) -> jax.Array:
  a, b = a.astype(jnp.float32), b.astype(jnp.float32)
  return (a + _product(factor, b - a)).clip(0, 255).astype(jnp.uint8)


def _fill(image: jax.Array, op: jax.Array, values: jax.Array) -> jax.Array:
  size = len(image)
  half = jnp.where(op == _ID["Cutout"], values[0], 0).astype(jnp.int32)
  centre = jnp.minimum((values[1:] * size).astype(jnp.int32), size - 1)
  places = jnp.arange(size)
  rows = (centre[0] - half <= places) & (places < centre[0] + half)
  columns = (centre[1] - half <= places) & (places < centre[1] + half)
  cut = rows[:, None] & columns[None]
  return jnp.where(cut[..., None], jnp.uint8(FILL), image)
