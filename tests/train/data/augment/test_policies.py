"""Operations of the policies: which, how often and how strong."""

import collections

import numpy as np
import pytest
from support.tensorflow_record import PHOTOGRAPHS, RECORD, crc32, photograph

from podscale.train.data.augment.image_ops import OPS, Op, apply_op
from podscale.train.data.augment.policies import (
  AutoAugment,
  RandAugment,
  apply_ops,
)
from podscale.train.errors import UsageError

RNG = np.random.default_rng(0)
BELOW_ONE = 1 - 2.0**-53

# TensorFlow's policy "v0": name, probability and level of each operation.
V0 = [
  [
    (name, float(probability), int(level))
    for name, probability, level in map(str.split, pair.split(","))
  ]
  for pair in """
    Equalize .8 1, ShearY .8 4 | Color .4 9, Equalize .6 3
    Color .4 1, Rotate .6 8 | Solarize .8 3, Equalize .4 7
    Solarize .4 2, Solarize .6 2 | Color .2 0, Equalize .8 8
    Equalize .4 8, SolarizeAdd .8 3 | ShearX .2 9, Rotate .6 8
    Color .6 1, Equalize 1 2 | Invert .4 9, Rotate .6 0
    Equalize 1 9, ShearY .6 3 | Color .4 7, Equalize .6 0
    Posterize .4 6, AutoContrast .4 7 | Solarize .6 8, Color .6 9
    Solarize .2 4, Rotate .8 9 | Rotate 1 7, TranslateY .8 9
    ShearX 0 0, Solarize .8 4 | ShearY .8 0, Color .6 4
    Color 1 0, Rotate .6 2 | Equalize .8 4, Equalize 0 8
    Equalize 1 4, AutoContrast .6 2 | ShearY .4 7, SolarizeAdd .6 7
    Posterize .8 2, Solarize .6 10 | Solarize .6 8, Equalize .6 1
    Color .8 6, Rotate .4 5
  """.strip()
  .replace("\n", "|")
  .split("|")
]
PAIRS = len(V0)


def auto(pair, first, second, sign=0.9):
  """Draw the operations of a pair, given the numbers that apply them."""
  rest = [0.5] * 3
  return AutoAugment().draw(
    [(pair + 0.5) / PAIRS, first, sign, second, sign, *rest]
  )


def rand(name, magnitude, sign=0.9, y=0.25, x=0.75):
  which = (OPS.index(name) + 0.5) / len(OPS)
  (op,) = RandAugment(1, magnitude).draw([which, sign, y, x])
  return op


def test_all_numbers_of_zero_pick_the_first_of_everything():
  equalize, shear = AutoAugment().draw([0.0] * 8)
  assert equalize == Op("Equalize", 0.0, 0.0, 0.0)
  assert shear == Op("ShearY", pytest.approx(-0.12), 0.0, 0.0)
  contrast = Op("AutoContrast", 0.0, 0.0, 0.0)
  assert RandAugment(2, 10).draw([0.0] * 8) == [contrast, contrast]


def test_all_numbers_below_one_pick_the_last_of_everything():
  assert V0[-1] == [("Color", 0.8, 6), ("Rotate", 0.4, 5)]
  assert AutoAugment().draw([BELOW_ONE] * 8) == []
  numbers = [BELOW_ONE, 0.0, BELOW_ONE, 0.0, BELOW_ONE, *[BELOW_ONE] * 3]
  color, rotate = AutoAugment().draw(numbers)
  assert (color.name, rotate) == ("Color", Op("Rotate", 15.0, 0.0, 0.0))
  add = Op("SolarizeAdd", 110, 0.0, 0.0)
  assert RandAugment(2, 10).draw([BELOW_ONE] * 8) == [add, add]


def test_each_layer_of_rand_augment_has_four_numbers_of_its_own():
  policy = RandAugment(3, 9)
  assert (policy.numbers, policy.layers) == (12, 3)
  for numbers in RNG.random((200, 12)).tolist():
    assert policy.draw(tuple(numbers)) == [
      RandAugment(1, 9).draw(numbers[first : first + 4])[0]
      for first in (0, 4, 8)
    ]


@pytest.mark.parametrize("pair", range(25))
def test_pairs_of_auto_augment(pair):
  assert (PAIRS, AutoAugment().numbers, AutoAugment().layers) == (25, 8, 2)
  names, chances, _ = zip(*V0[pair], strict=True)

  def drawn(first, second):
    return [op.name for op in auto(pair, first, second)]

  def applied(*numbers):
    pairs = zip(names, numbers, chances, strict=True)
    return [name for name, number, chance in pairs if number < chance]

  numbers = [0.0, BELOW_ONE, *chances, *(chance - 1e-9 for chance in chances)]
  for first in numbers:
    for second in numbers:
      if min(first, second) >= 0 and max(first, second) < 1:
        assert drawn(first, second) == applied(first, second)


@pytest.mark.parametrize("sign", [0.0, 0.499, 0.5, BELOW_ONE])
@pytest.mark.parametrize("pair", range(25))
def test_strengths_of_auto_augment(pair, sign):
  wanted = [
    Op(name, pytest.approx(strength(name, level, sign, 250)), 0.0, 0.0)
    for name, probability, level in V0[pair]
    if probability > 0
  ]
  assert auto(pair, 0.0, 0.0, sign) == wanted


def strength(name, level, sign, reach):
  """Compute the argument of TensorFlow's EfficientNet at a level."""
  share = level / 10
  signed = -share if sign < 0.5 else share
  return {
    "Rotate": signed * 30,
    "ShearX": signed * 0.3,
    "ShearY": signed * 0.3,
    "TranslateX": signed * reach,
    "TranslateY": signed * reach,
    "Posterize": int(share * 4),
    "Solarize": int(share * 256),
    "SolarizeAdd": int(share * 110),
    "Cutout": int(share * 40),
    **dict.fromkeys(
      ["Color", "Contrast", "Brightness", "Sharpness"], share * 1.8 + 0.1
    ),
  }.get(name, 0.0)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_operations_of_auto_augment_give_what_tensorflow_gives(name):
  image = photograph(name)
  for pair, operations in enumerate(V0):
    drawn = auto(pair, 0.0, 0.0)
    applied = [o for o in operations if o[1] > 0]
    for op, (kind, _, level) in zip(drawn, applied, strict=True):
      cases = [kind, f"{kind} +30", f"{kind} +0.3", f"{kind} +250"]
      (case,) = (case for case in cases if case in RECORD[name])
      assert crc32(apply_op(image, op)) == RECORD[name][case][level]


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


def test_each_operation_has_its_own_numbers():
  rotate, translate = AutoAugment().draw(
    [15.5 / PAIRS, 0, 0.1, 0, 0.9, 0, 0, 0]
  )
  assert rotate.value == -21.0 and translate.value == 225.0
  (rotate,) = AutoAugment().draw([15.5 / PAIRS, 0, 0.9, 0.9, 0.1, 0, 0, 0])
  assert rotate == Op("Rotate", 21.0, 0.0, 0.0)


@pytest.mark.parametrize("sign", [0.0, 0.499, 0.5, BELOW_ONE])
@pytest.mark.parametrize("name", OPS)
def test_strengths_of_rand_augment(name, sign):
  for magnitude in [*range(31), 22.5, 100]:
    op = rand(name, magnitude, sign)
    value = pytest.approx(strength(name, magnitude, sign, 100), rel=1e-12)
    y, x = (0.25, 0.75) if name == "Cutout" else (0.0, 0.0)
    assert op == Op(name, value, y, x)


# No cap: the wrapping is the operation's.
def test_strengths_beyond_a_byte_are_as_they_are():
  assert rand("Posterize", 22.5).value == 9
  assert rand("Solarize", 10).value == 256
  assert rand("Solarize", 17).value == 435


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
