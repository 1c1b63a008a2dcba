"""Augmentation on the device against that on the host."""

import jax
import numpy as np
import pytest

from podscale.train.data.device_augment import augment_on_device, encode_ops
from podscale.train.data.image_ops import OPS, Op
from podscale.train.data.policies import AutoAugment, RandAugment, apply_ops

RNG = np.random.default_rng(0)
augment = jax.jit(augment_on_device)

STRENGTHS = {
  "AutoContrast": [0],
  "Equalize": [0],
  "Invert": [0],
  "Rotate": [-90.0, -24.0, 0.0, 0.1, 21.0, 84.0],
  "Posterize": [0, 1, 4, 8],
  "Solarize": [0, 1, 128, 255, 256],
  "Color": [0.0, 0.1, 0.28, 1.0, 1.18, 1.9, 5.14],
  "Contrast": [0.0, 0.1, 0.28, 1.0, 1.18, 1.9, 5.14],
  "Brightness": [0.0, 0.1, 0.28, 1.0, 1.18, 1.9, 5.14],
  "Sharpness": [0.0, 0.1, 0.28, 1.0, 1.18, 1.9, 5.14],
  "ShearX": [-0.9, -0.27, 0.0, 0.12, 3.0],
  "ShearY": [-0.9, -0.27, 0.0, 0.12, 3.0],
  "TranslateX": [-1000.0, -10.5, 0.0, 0.5, 31.0, 250.0],
  "TranslateY": [-1000.0, -10.5, 0.0, 0.5, 31.0, 250.0],
  "Cutout": [0, 1, 9, 100],
  "SolarizeAdd": [0, 33, 110, 308],
}
CASES = [
  Op(name, value, y, x)
  for name, values in STRENGTHS.items()
  for value in values
  for y, x in ([(0.0, 0.999), (0.4, 0.7)] if name == "Cutout" else [(0.0, 0.0)])
]


def random_images(n, size):
  """Uniform ones, ones of few levels, and ones of a single level."""
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
  assert values[0].tolist() == [[20, 0.25, 0.5], [0, 65536, 0], [0, 0, 0]]
  assert not values[1].any()
  assert values[2, :2].tolist() == [[-10, 0, 0], [16384, 0, 0]]


def test_every_operation_has_cases():
  assert list(STRENGTHS) == list(OPS)


@pytest.mark.parametrize("kind", range(4))
def test_each_operation_is_that_of_the_host(kind):
  images = np.stack([random_images(4, 32)[kind]] * len(CASES))
  host, device = on_host_and_device(images, [[op] for op in CASES], 1)
  for op, want, got in zip(CASES, host, device, strict=True):
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


def test_odd_factors_differ_by_a_level_in_few_places():
  names = ["Color", "Contrast", "Brightness", "Sharpness"]
  images = np.stack([RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)] * 400)
  factors = RNG.uniform(0, 6, 100)
  ops = [[Op(name, f, 0.0, 0.0)] for f in factors for name in names]
  host, device = on_host_and_device(images, ops, 1)
  off = np.abs(host.astype(int) - device)
  # Each of three steps is off by 2**-14 at most, near 6 * 255, and few blends
  # are that near to where they are cut.
  assert off.max() <= 1 and off.mean() < 1e-4


@pytest.mark.parametrize("size", [1, 2, 3])
def test_tiny_images(size):
  images = RNG.integers(0, 256, (len(CASES), size, size, 3), dtype=np.uint8)
  host, device = on_host_and_device(images, [[op] for op in CASES], 1)
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
