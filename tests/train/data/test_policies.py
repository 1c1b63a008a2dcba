"""Which operations the policies pick, how often and how strong."""

import collections

import numpy as np
import pytest

from podscale.train.data.image_ops import OPS, Op, apply_op
from podscale.train.data.policies import AutoAugment, RandAugment, apply_ops
from podscale.train.errors import UsageError

RNG = np.random.default_rng(0)
PAIRS = 25


def auto(pair, first=0.0, second=0.0, signs=0.9):
  """Operations of a pair of AutoAugment, with the numbers they are drawn by."""
  rest = [0.0] * 3
  return AutoAugment().draw(
    [(pair + 0.5) / PAIRS, first, signs, second, signs, *rest]
  )


def rand(name, magnitude, sign=0.9, y=0.25, x=0.75):
  which = (OPS.index(name) + 0.5) / len(OPS)
  (op,) = RandAugment(1, magnitude).draw([which, sign, y, x])
  return op


@pytest.mark.parametrize("policy", [AutoAugment(), RandAugment(3, 9)])
def test_numbers_decide_everything(policy):
  assert policy.numbers % 4 == 0
  for numbers in RNG.random((100, policy.numbers)).tolist():
    ops = policy.draw(numbers)
    assert len(ops) <= policy.layers
    assert policy.draw(tuple(numbers)) == ops


@pytest.mark.parametrize("u", [0.0, 1 - 2.0**-53])
@pytest.mark.parametrize("policy", [AutoAugment(), RandAugment(2, 10)])
def test_extreme_numbers_are_no_error(policy, u):
  policy.draw([u] * policy.numbers)


# What each of the 25 pairs is, at its strongest: all with numbers of 0 but
# those of probability 0.
@pytest.mark.parametrize(
  "pair, names",
  [
    (0, ["Equalize", "ShearY"]),
    (5, ["Color", "Equalize"]),
    (9, ["Invert", "Rotate"]),
    (12, ["Posterize", "AutoContrast"]),
    (15, ["Rotate", "TranslateY"]),
    (16, ["Solarize"]),
    (19, ["Equalize"]),
    (21, ["ShearY", "SolarizeAdd"]),
    (22, ["Posterize", "Solarize"]),
    (24, ["Color", "Rotate"]),
  ],
)
def test_pairs_of_auto_augment(pair, names):
  assert [op.name for op in auto(pair)] == names


@pytest.mark.parametrize(
  "pair, first, second",
  [
    (0, 0.8, 0.8),
    (1, 0.4, 0.6),
    (10, 1.0, 0.6),
    (15, 1.0, 0.8),
    (24, 0.8, 0.4),
  ],
)
def test_probabilities_of_auto_augment(pair, first, second):
  assert len(auto(pair, first - 0.01, second - 0.01)) == 2
  if first < 1:
    assert len(auto(pair, first, second - 0.01)) == 1
  assert len(auto(pair, first - 0.01, second)) == 1


def test_how_often_auto_augment_applies_what():
  draws = RNG.random((20_000, 8)).tolist()
  names = collections.Counter(
    op.name for draw in draws for op in AutoAugment().draw(draw)
  )
  # Sums of the probabilities over the 25 pairs.
  want = {
    "Equalize": 8.6,
    "Color": 5.0,
    "Rotate": 5.3,
    "Solarize": 5.2,
    "ShearY": 2.6,
    "ShearX": 0.2,
    "SolarizeAdd": 1.4,
    "Posterize": 1.2,
    "AutoContrast": 1.0,
    "TranslateY": 0.8,
    "Invert": 0.4,
  }
  assert set(names) == set(want)
  for name, total in want.items():
    # A draw has a standard deviation below 1 for each name.
    assert abs(names[name] / 20_000 - total / PAIRS) < 5 / 20_000**0.5


@pytest.mark.parametrize(
  "pair, place, value",
  [
    (0, 1, 4 / 10 * 0.3),  # ShearY 4
    (1, 0, 9 / 10 * 1.8 + 0.1),  # Color 9
    (2, 1, 24.0),  # Rotate 8
    (3, 0, 76),  # Solarize 3
    (5, 0, 0.1),  # Color 0
    (5, 1, 0.0),  # Equalize
    (6, 1, 33),  # SolarizeAdd 3
    (7, 0, 0.27),  # ShearX 9
    (12, 0, 2),  # Posterize 6
    (15, 1, 225.0),  # TranslateY 9
    (22, 0, 0),  # Posterize 2
    (22, 1, 256),  # Solarize 10
  ],
)
def test_strengths_of_auto_augment(pair, place, value):
  op = auto(pair)[place]
  assert op.value == pytest.approx(value, rel=1e-12)
  assert (op.y, op.x) == (0.0, 0.0)


def test_half_of_the_geometric_ones_are_negated():
  assert auto(2, signs=0.499)[1].value == -24.0
  assert auto(2, signs=0.5)[1].value == 24.0
  assert auto(2, signs=0.0)[0].value == pytest.approx(0.28)  # Color
  assert rand("ShearX", 10, 0.49).value == pytest.approx(-0.3)
  assert rand("ShearY", 10, 0.51).value == pytest.approx(0.3)
  assert rand("Posterize", 10, 0.0).value == 4


def test_each_operation_has_its_own_numbers():
  rotate, translate = AutoAugment().draw(
    [15.5 / PAIRS, 0, 0.1, 0, 0.9, 0, 0, 0]
  )
  assert rotate.value == -21.0 and translate.value == 225.0
  (rotate,) = AutoAugment().draw([15.5 / PAIRS, 0, 0.9, 0.9, 0.1, 0, 0, 0])
  assert rotate == Op("Rotate", 21.0, 0.0, 0.0)


# At levels 0, 5 and 10 and beyond.
@pytest.mark.parametrize(
  "name, values",
  [
    ("AutoContrast", [0, 0, 0, 0]),
    ("Equalize", [0, 0, 0, 0]),
    ("Invert", [0, 0, 0, 0]),
    ("Rotate", [0, 15, 30, 84]),
    ("Posterize", [0, 2, 4, 8]),
    ("Solarize", [0, 128, 256, 256]),
    ("Color", [0.1, 1.0, 1.9, 5.14]),
    ("Contrast", [0.1, 1.0, 1.9, 5.14]),
    ("Brightness", [0.1, 1.0, 1.9, 5.14]),
    ("Sharpness", [0.1, 1.0, 1.9, 5.14]),
    ("ShearX", [0, 0.15, 0.3, 0.84]),
    ("ShearY", [0, 0.15, 0.3, 0.84]),
    ("TranslateX", [0, 50, 100, 280]),
    ("TranslateY", [0, 50, 100, 280]),
    ("Cutout", [0, 20, 40, 112]),
    ("SolarizeAdd", [0, 55, 110, 308]),
  ],
)
def test_strengths_of_rand_augment(name, values):
  for magnitude, value in zip([0, 5, 10, 28], values, strict=True):
    op = rand(name, magnitude)
    assert op.name == name and op.value == pytest.approx(value, rel=1e-12)
    assert (op.y, op.x) == ((0.25, 0.75) if name == "Cutout" else (0.0, 0.0))


def test_magnitudes_between_whole_ones_cut_what_is_whole():
  assert rand("Posterize", 7.4).value == 2
  assert rand("Solarize", 3.3).value == 84
  assert rand("Rotate", 2.5).value == 7.5


def test_rand_augment_picks_all_operations_alike():
  policy = RandAugment(2, 9)
  drawn = [policy.draw(row) for row in RNG.random((8000, 8)).tolist()]
  assert {len(ops) for ops in drawn} == {2}
  for layer in range(2):
    counts = collections.Counter(ops[layer].name for ops in drawn)
    # 500 each, with a standard deviation of 22.
    assert len(counts) == 16 and all(390 < c < 610 for c in counts.values())


@pytest.mark.parametrize("layers, magnitude", [(0, 9), (2, -1), (2, 100.5)])
def test_wrong_rand_augments_are_usage_errors(layers, magnitude):
  with pytest.raises(UsageError):
    RandAugment(layers, magnitude)


def test_operations_are_applied_in_order():
  image = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
  before = image.copy()
  ops = [Op("Rotate", 20.0, 0, 0), Op("TranslateX", 9.0, 0, 0)]
  want = apply_op(apply_op(image, ops[0]), ops[1])
  np.testing.assert_array_equal(apply_ops(image, ops), want)
  assert (apply_ops(image, ops[::-1]) != want).any()
  np.testing.assert_array_equal(image, before)
  np.testing.assert_array_equal(apply_ops(image, []), image)
