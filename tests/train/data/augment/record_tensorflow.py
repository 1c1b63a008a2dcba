"""Record TensorFlow 1.15's results for two photographs: 16 ops, 31 levels.

The operations are those of tensorflow/tpu's
models/official/efficientnet/autoaugment.py, written anew from the functions of
TensorFlow that it calls. test_image_ops, test_policies and test_device_augment
compare podscale's with the record. Nothing imports this file. To run it by
hand, with Python 3.7:

  python3.7 -m venv tf115
  tf115/bin/pip install tensorflow==1.15.5 "protobuf<3.21"
  tf115/bin/python tests/train/data/augment/record_tensorflow.py
"""

import json
import math
import os
import pathlib
import zlib

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import tensorflow as tf
from tensorflow.contrib import image as contrib_image

FOLDER = pathlib.Path(__file__).parent / "recorded"
LEVELS = range(31)
FILL = 128


def auto_contrast(image):
  def stretch(plane):
    low, high = (
      tf.cast(reduce(plane), tf.float32)
      for reduce in (tf.reduce_min, tf.reduce_max)
    )
    scale = 255.0 / (high - low)
    wide = tf.cast(plane, tf.float32) * scale + -low * scale
    wide = tf.cast(tf.clip_by_value(wide, 0.0, 255.0), tf.uint8)
    return tf.cond(high > low, lambda: wide, lambda: plane)

  return of_each_channel(stretch, image)


def equalize(image):
  def flatten(plane):
    plane = tf.cast(plane, tf.int32)
    counts = tf.histogram_fixed_width(plane, [0, 255], nbins=256)
    used = tf.boolean_mask(counts, counts > 0)
    step = (tf.reduce_sum(used) - used[-1]) // 255
    up_to = (tf.cumsum(counts) + step // 2) // tf.maximum(step, 1)
    table = tf.clip_by_value(tf.concat([[0], up_to[:-1]], 0), 0, 255)
    out = tf.cond(step > 0, lambda: tf.gather(table, plane), lambda: plane)
    return tf.cast(out, tf.uint8)

  return of_each_channel(flatten, image)


def of_each_channel(function, image):
  return tf.stack([function(image[..., c]) for c in range(3)], -1)


def invert(image):
  return 255 - image


def posterize(image, bits):
  # TensorFlow makes 8 - bits a uint8, so that -1 is 255.
  right = tf.bitwise.right_shift(image, 8 - bits)
  return tf.bitwise.left_shift(right, 8 - bits)


def solarize(image, threshold):
  # TensorFlow makes the threshold a uint8, so that 256 is 0.
  return tf.where(image < threshold, image, 255 - image)


def solarize_add(image, addition):
  added = tf.clip_by_value(tf.cast(image, tf.int64) + addition, 0, 255)
  return tf.where(image < 128, tf.cast(added, tf.uint8), image)


def blend(a, b, factor):
  if factor == 1.0:
    return b
  a, b = tf.cast(a, tf.float32), tf.cast(b, tf.float32)
  mixed = a + factor * (b - a)
  # Clipping changes nothing where 0 < factor < 1.
  return tf.cast(tf.clip_by_value(mixed, 0.0, 255.0), tf.uint8)


def color(image, factor):
  grey = tf.image.rgb_to_grayscale(image)
  return blend(tf.image.grayscale_to_rgb(grey), image, factor)


def contrast(image, factor):
  grey = tf.cast(tf.image.rgb_to_grayscale(image), tf.int32)
  counts = tf.histogram_fixed_width(grey, [0, 255], nbins=256)
  mean = tf.reduce_sum(tf.cast(counts, tf.float32)) / 256.0
  mean = tf.cast(tf.clip_by_value(mean, 0.0, 255.0), tf.uint8)
  return blend(tf.ones_like(image) * mean, image, factor)


def brightness(image, factor):
  return blend(tf.zeros_like(image), image, factor)


def sharpness(image, factor):
  weights = tf.constant([1, 1, 1, 1, 5, 1, 1, 1, 1], tf.float32, [3, 3, 1, 1])
  weights = tf.tile(weights / 13.0, [1, 1, 3, 1])
  inner = tf.nn.depthwise_conv2d(
    tf.cast(image, tf.float32)[None], weights, [1, 1, 1, 1], "VALID"
  )
  inner = tf.cast(tf.clip_by_value(inner, 0.0, 255.0), tf.uint8)[0]
  border = [[1, 1], [1, 1], [0, 0]]
  is_inner = tf.pad(tf.ones_like(inner), border) > 0
  return blend(tf.where(is_inner, tf.pad(inner, border), image), image, factor)


def filled(transform, image):
  """Call `transform`; pixels from outside the image become `FILL`."""
  inside = tf.ones_like(image[..., :1])
  moved = transform(tf.concat([image, inside], -1))
  outside = tf.tile(tf.equal(moved[..., 3:], 0), [1, 1, 3])
  fill = tf.fill(tf.shape(image), tf.constant(FILL, tf.uint8))
  return tf.where(outside, fill, moved[..., :3])


def rotate(image, degrees):
  radians = tf.constant(degrees, tf.float32) * (math.pi / 180.0)
  return filled(lambda x: contrib_image.rotate(x, radians), image)


def shear_x(image, slope):
  slope = tf.constant(slope, tf.float32)
  matrix = [1.0, slope, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
  return filled(lambda x: contrib_image.transform(x, matrix), image)


def shear_y(image, slope):
  slope = tf.constant(slope, tf.float32)
  matrix = [1.0, 0.0, 0.0, slope, 1.0, 0.0, 0.0, 0.0]
  return filled(lambda x: contrib_image.transform(x, matrix), image)


def translate_x(image, pixels):
  by = [-tf.constant(pixels, tf.float32), 0]
  return filled(lambda x: contrib_image.translate(x, by), image)


def translate_y(image, pixels):
  by = [0, -tf.constant(pixels, tf.float32)]
  return filled(lambda x: contrib_image.translate(x, by), image)


def cutout(image, half):
  """Fill a square about the point at 3/8 of the height, 5/8 of the width."""
  height, width = image.shape.as_list()[:2]
  y, x = height * 3 // 8, width * 5 // 8
  top, left = max(0, y - half), max(0, x - half)
  bottom, right = max(0, height - y - half), max(0, width - x - half)
  square = [height - top - bottom, width - left - right, 3]
  kept = tf.pad(
    tf.zeros(square, tf.uint8),
    [[top, bottom], [left, right], [0, 0]],
    constant_values=1,
  )
  fill = tf.fill(tf.shape(image), tf.constant(FILL, tf.uint8))
  return tf.where(tf.equal(kept, 0), fill, image)


def whole(full):
  """Compute the integer at each level; `full` is the integer at level 10."""
  return [(int(level / 10.0 * full),) for level in LEVELS]


def real(full):
  return [(level / 10.0 * full,) for level in LEVELS]


NOTHING = [() for _ in LEVELS]
FACTORS = [(level / 10.0 * 1.8 + 0.1,) for level in LEVELS]

# The arguments of each operation by level. A name's number is the argument at
# level 10 where there are several.
CASES = {
  "AutoContrast": (auto_contrast, NOTHING),
  "Equalize": (equalize, NOTHING),
  "Invert": (invert, NOTHING),
  "Rotate +30": (rotate, real(30.0)),
  "Rotate -30": (rotate, real(-30.0)),
  "Posterize": (posterize, whole(4)),
  "Solarize": (solarize, whole(256)),
  "Color": (color, FACTORS),
  "Contrast": (contrast, FACTORS),
  "Brightness": (brightness, FACTORS),
  "Sharpness": (sharpness, FACTORS),
  "ShearX +0.3": (shear_x, real(0.3)),
  "ShearX -0.3": (shear_x, real(-0.3)),
  "ShearY +0.3": (shear_y, real(0.3)),
  "ShearY -0.3": (shear_y, real(-0.3)),
  "TranslateX +100": (translate_x, real(100.0)),
  "TranslateX -100": (translate_x, real(-100.0)),
  "TranslateX +250": (translate_x, real(250.0)),
  "TranslateX -250": (translate_x, real(-250.0)),
  "TranslateY +100": (translate_y, real(100.0)),
  "TranslateY -100": (translate_y, real(-100.0)),
  "TranslateY +250": (translate_y, real(250.0)),
  "TranslateY -250": (translate_y, real(-250.0)),
  "Cutout": (cutout, whole(40)),
  "SolarizeAdd": (solarize_add, whole(110)),
}


def results(path):
  """Compute every case for one image: a list by level of uint8 arrays."""
  # TensorFlow's rewrites of graphs move the last bits of a rotation's centre,
  # with the shapes and constants of the graph around it.
  config = tf.ConfigProto()
  config.graph_options.rewrite_options.disable_meta_optimizer = True
  with tf.Graph().as_default(), tf.Session(config=config) as session:
    pixels = session.run(tf.image.decode_png(path.read_bytes()))
    image = tf.placeholder(tf.uint8, pixels.shape)
    outputs = {
      case: [function(image, *arguments) for arguments in by_level]
      for case, (function, by_level) in CASES.items()
    }
    return session.run(outputs, {image: pixels})


def main():
  record = {"tensorflow": tf.__version__}
  for path in sorted(FOLDER.glob("*.png")):
    record[path.stem] = {
      case: [zlib.crc32(out.tobytes()) for out in by_level]
      for case, by_level in results(path).items()
    }
  text = json.dumps(record).replace('], "', '],\n"').replace("}, ", "},\n")
  (FOLDER / "tensorflow.json").write_text(text + "\n")


if __name__ == "__main__":
  main()
