"""Augmentation on the device against TensorFlow's results and the host."""

import itertools

import jax
import numpy as np
import pytest
from support.tensorflow_record import (
  CASES,
  LEVELS,
  PHOTOGRAPHS,
  RECORD,
  crc32,
  op_of,
  photograph,
)

from podscale.train.data.augment.device_augment import (
  augment_on_device,
  encode_ops,
)
from podscale.train.data.augment.image_ops import OPS, Op
from podscale.train.data.augment.policies import (
  AutoAugment,
  RandAugment,
  apply_ops,
)

RNG = np.random.default_rng(0)
augment = jax.jit(augment_on_device)

FACTORS = [0.0, 0.1, 0.28, 1.0, 1.18, 1.9, 5.14, 5.5, 19.0]
STRENGTHS = {
  "AutoContrast": [0],
  "Equalize": [0],
  "Invert": [0],
  "Rotate": [-90.0, -24.0, 0.0, 0.1, 21.0, 84.0],
  "Posterize": [0, 1, 4, 8, 9, 12, 40],
  "Solarize": [0, 1, 128, 255, 256, 435, 768],
  "Color": FACTORS,
  "Contrast": FACTORS,
  "Brightness": FACTORS,
  "Sharpness": FACTORS,
  "ShearX": [-0.9, -0.3, -0.27, 0.0, 0.12, 0.5, 3.0],
  "ShearY": [-0.9, -0.3, -0.27, 0.0, 0.12, 0.5, 3.0],
  "TranslateX": [-1000.0, -10.5, -0.5, 0.0, 0.5, 31.0, 250.0],
  "TranslateY": [-1000.0, -10.5, -0.5, 0.0, 0.5, 31.0, 250.0],
  "Cutout": [0, 1, 9, 100],
  "SolarizeAdd": [0, 33, 110, 308],
}
CENTRES = [(0.0, 0.999), (0.4, 0.7), (1 - 2.0**-53, 1 - 2.0**-53)]
OPERATIONS = [
  Op(name, value, y, x)
  for name, values in STRENGTHS.items()
  for value in values
  for y, x in (CENTRES if name == "Cutout" else [(0.0, 0.0)])
]


def random_images(n, size):
  """Make uniform images, images of few levels, and images of one level."""
  images = RNG.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
  images[1::4] = images[1::4] // 4 + 90
  images[2::4, ..., 1] = 77
  images[3::8] = 200
  return images


def on_host_and_device(images, ops, layers):
  before = images.copy()
  on_host = [apply_ops(*pair) for pair in zip(images, ops, strict=True)]
  on_device = augment(images, *encode_ops(ops, layers))
  assert on_device.dtype == np.uint8
  np.testing.assert_array_equal(images, before)
  return np.stack(on_host), np.asarray(on_device)


def test_encoding():
  ops = [
    [Op("Cutout", 20, 0.25, 0.5), Op("Rotate", 90.0, 0.0, 0.0)],
    [],
    [Op("TranslateX", -10.2, 0.0, 0.0), Op("ShearY", 0.25, 0.0, 0.0)],
  ]
  ids, values = encode_ops(ops, 3)
  assert ids.dtype == np.int32 and values.dtype == np.float32
  assert ids.tolist() == [[14, 3, 16], [16, 16, 16], [12, 11, 16]]
  assert values[0, 0].tolist() == [20, 0.25, 0.5]
  # The cosine of 90 degrees as float32 has them.
  np.testing.assert_allclose(values[0, 1], [-4.4e-8, 1, 0], atol=1e-9, rtol=0)
  assert not values[1].any()
  assert values[2, :2].tolist() == [[np.float32(-10.2), 0, 0], [0.25, 0, 0]]


def test_every_operation_has_cases():
  assert list(STRENGTHS) == list(OPS)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_every_level_gives_what_tensorflow_gives(name, case):
  images = np.stack([photograph(name)] * len(LEVELS))
  ops = [[op_of(case, level)] for level in LEVELS]
  got = np.asarray(augment(images, *encode_ops(ops, 1)))
  assert [crc32(image) for image in got] == RECORD[name][case]


@pytest.mark.parametrize("kind", range(4))
def test_each_operation_is_that_of_the_host(kind):
  images = np.stack([random_images(4, 32)[kind]] * len(OPERATIONS))
  host, device = on_host_and_device(images, [[op] for op in OPERATIONS], 1)
  for op, want, got in zip(OPERATIONS, host, device, strict=True):
    np.testing.assert_array_equal(got, want, err_msg=str(op))


@pytest.mark.parametrize("size, n", [(32, 64), (224, 4)])
@pytest.mark.parametrize(
  "policy", [AutoAugment(), RandAugment(2, 9), RandAugment(3, 17.3)], ids=str
)
def test_whole_policies_are_those_of_the_host(policy, size, n):
  images = random_images(n, size)
  ops = [policy.draw(row) for row in RNG.random((n, policy.numbers)).tolist()]
  host, device = on_host_and_device(images, ops, policy.layers)
  np.testing.assert_array_equal(device, host)


def test_values_that_no_level_has():
  full = {"Rotate": 90, "ShearX": 1, "ShearY": 1}
  full |= {"TranslateX": 40, "TranslateY": 40}
  full |= dict.fromkeys(["Color", "Contrast", "Brightness", "Sharpness"], 6)
  shares = RNG.uniform(-1, 1, len(OPERATIONS))
  ops = [
    [Op(name, abs(share) * most if most == 6 else share * most, 0.0, 0.0)]
    for share, (name, most) in zip(
      shares, itertools.cycle(full.items()), strict=False
    )
  ]
  images = np.stack([random_images(1, 32)[0]] * len(OPERATIONS))
  host, device = on_host_and_device(images, ops, 1)
  np.testing.assert_array_equal(device, host)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_tiny_images(size):
  images = RNG.integers(
    0, 256, (len(OPERATIONS), size, size, 3), dtype=np.uint8
  )
  host, device = on_host_and_device(images, [[op] for op in OPERATIONS], 1)
  np.testing.assert_array_equal(device, host)


def test_other_operations_and_strengths_do_not_compile_anew():
  compiled = set()
  policy = RandAugment(2, 9)
  for numbers in RNG.random((3, 64, policy.numbers)).tolist():
    drawn = encode_ops([policy.draw(row) for row in numbers], policy.layers)
    augment(random_images(64, 32), *drawn)
    compiled.add(augment._cache_size())
  assert len(compiled) == 1


def test_too_large_images_are_an_error():
  shapes = [((1, 2049, 2049, 3), np.uint8), ((1, 1), np.int32)]
  shapes.append(((1, 1, 3), np.float32))
  with pytest.raises(ValueError, match="2048"):
    jax.eval_shape(
      augment_on_device, *(jax.ShapeDtypeStruct(*shape) for shape in shapes)
    )
