import dataclasses
import math

import pytest
from support.efficientnet_table import TABLE

from podscale.model import FAMILY, ModelSpec, model_spec
from podscale.model.spec import (
  HEAD_FILTERS,
  STAGES,
  STEM_FILTERS,
  block_specs,
  round_filters,
  round_repeats,
)


def multiply_adds(model, *, channels=3, classes=1000):
  """Count the multiply-adds of one image: all matmuls and convolutions."""
  size = math.ceil(model.resolution / model.stem_stride)
  stem = round_filters(STEM_FILTERS, model.width)
  head = round_filters(HEAD_FILTERS, model.width)
  total = size**2 * 9 * channels * stem
  for block in block_specs(model):
    if block.expanded != block.in_filters:
      total += size**2 * block.in_filters * block.expanded
    size = math.ceil(size / block.stride)
    total += size**2 * block.expanded * block.kernel_size**2
    total += 2 * block.expanded * block.squeezed
    total += size**2 * block.expanded * block.out_filters
  return total + size**2 * block.out_filters * head + head * classes


def has_skip(block):
  return block.stride == 1 and block.in_filters == block.out_filters


@pytest.mark.parametrize("name", TABLE)
def test_scaling_is_the_published(name):
  row, model = TABLE[name], model_spec(name)
  assert (model.width, model.depth) == (row.width, row.depth)
  assert (model.resolution, model.dropout) == (row.resolution, row.dropout)
  assert (model.survival_prob, model.stem_stride) == (0.8, 2)
  assert round_filters(STEM_FILTERS, model.width) == row.stem
  assert round_filters(HEAD_FILTERS, model.width) == row.head


@pytest.mark.parametrize("name", TABLE)
def test_blocks_are_the_published(name):
  row, blocks = TABLE[name], block_specs(model_spec(name))
  assert len(blocks) == row.blocks
  assert sum(map(has_skip, blocks)) == row.skips
  kernels = (3, 3, 5, 3, 5, 5, 3)
  strides = (1, 2, 2, 2, 1, 2, 1)
  expected, filters = [], row.stem
  for out, repeats, kernel, stride in zip(
    row.filters, row.repeats, kernels, strides, strict=True
  ):
    for repeat in range(repeats):
      expand = 1 if len(expected) < row.repeats[0] else 6
      # Squeeze-excite counts from the block's input, before the expansion.
      squeezed = filters // 4
      expected.append(
        (
          kernel,
          stride if repeat == 0 else 1,
          filters,
          filters * expand,
          out,
          squeezed,
        )
      )
      filters = out
  assert [block[:6] for block in blocks] == expected


@pytest.mark.parametrize("name", TABLE)
def test_multiply_adds_are_the_published(name):
  # The table is rounded to three decimals.
  count = multiply_adds(model_spec(name)) / 1e9
  assert abs(count - TABLE[name].gmacs) <= 0.0005 + 1e-9


def test_family_has_b8_l2_and_lite():
  assert list(FAMILY) == [*TABLE, "b8", "l2", *LITE]
  assert dataclasses.astuple(FAMILY["b8"])[:4] == (2.2, 3.6, 672, 0.5)
  assert dataclasses.astuple(FAMILY["l2"])[:4] == (4.3, 5.3, 800, 0.5)


# Settings of TensorFlow's `efficientnet_lite_builder.py`, and the blocks, which
# follow: the first and the last stage have one each.
LITE = {
  "lite0": ((1.0, 1.0, 224, 0.2), 16),
  "lite1": ((1.0, 1.1, 240, 0.2), 21),
  "lite2": ((1.1, 1.2, 260, 0.3), 21),
  "lite3": ((1.2, 1.4, 280, 0.3), 24),
  "lite4": ((1.4, 1.8, 300, 0.3), 30),
}


@pytest.mark.parametrize("name", LITE)
def test_lite_has_fixed_ends_relu6_and_no_gate(name):
  model = model_spec(name)
  blocks = block_specs(model)
  assert (dataclasses.astuple(model)[:4], len(blocks)) == LITE[name]
  assert (model.stem_filters, model.head_filters) == (32, 1280)
  assert {(block.squeezed, block.activation) for block in blocks} == {
    (0, "relu6")
  }
  assert [block.in_filters == block.expanded for block in blocks] == [
    True,
    *[False] * (len(blocks) - 1),
  ]


@pytest.mark.parametrize("name", ["b0", "b5"])
def test_survival_falls_over_all_blocks(name):
  total = TABLE[name].blocks
  survival = [block.survival_prob for block in block_specs(model_spec(name))]
  assert survival[0] == 1
  # Roundings of one division, one product and one difference near 1.
  for i, value in enumerate(survival):
    assert abs(value - (1 - 0.2 * i / total)) <= 3 * 2.0**-53
  assert abs(survival[-1] - (0.8 + 0.2 / total)) <= 4 * 2.0**-53


def test_survival_is_free():
  blocks = block_specs(model_spec("b0", survival_prob=0.5))
  assert blocks[8].survival_prob == 0.75
  blocks = block_specs(model_spec("b0", survival_prob=1.0))
  assert {block.survival_prob for block in blocks} == {1}


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("width", 0.25),
    ("depth", 0.5),
    ("resolution", 96),
    ("dropout", 0.0),
    ("survival_prob", 1.0),
    ("stem_stride", 1),
  ],
)
def test_each_value_is_free(field, value):
  changed = dataclasses.asdict(model_spec("b2", **{field: value}))
  assert changed.pop(field) == value
  kept = dataclasses.asdict(FAMILY["b2"])
  del kept[field]
  assert changed == kept


def test_none_keeps_the_familys_value():
  assert model_spec("b4", width=None, resolution=None) == FAMILY["b4"]


def test_round_filters_over_the_family_and_beyond():
  filters = [STEM_FILTERS, HEAD_FILTERS, *(s.filters for s in STAGES)]
  for width in [0.05, 0.1, 0.25, 0.5, *(m.width for m in FAMILY.values()), 7]:
    for exact in (f * width for f in filters):
      rounded = round_filters(1, exact)
      assert rounded % 8 == 0
      assert rounded >= max(8, 0.9 * exact)
      # The nearest multiple, or the next one if the nearest loses a tenth.
      assert rounded - exact <= 8
      if exact >= 8:
        assert abs(rounded - exact) <= 4 or exact - (rounded - 8) > 0.1 * exact


def test_round_repeats_rounds_up():
  assert [round_repeats(r, 1.1) for r in (1, 2, 3, 4)] == [2, 3, 4, 5]
  assert [round_repeats(r, 0.25) for r in (1, 2, 3, 4)] == [1, 1, 1, 1]
  assert [round_repeats(r, 0.5) for r in (1, 2, 3, 4)] == [1, 1, 2, 2]


def test_squeeze_excite_has_one_channel_at_least():
  blocks = block_specs(model_spec("b0", width=0.05))
  assert {block.in_filters for block in blocks} == {8, 16}
  assert all(block.squeezed == block.in_filters // 4 for block in blocks)


@pytest.mark.parametrize(("stem_stride", "least"), [(2, 32), (1, 16)])
def test_resolution_must_cover_the_strides(stem_stride, least):
  model = model_spec("b0", resolution=least, stem_stride=stem_stride)
  assert model.total_stride == least
  message = f"resolution {least - 1} is too small.*by {least}.*least {least}"
  with pytest.raises(ValueError, match=message) as error:
    model_spec("b0", resolution=least - 1, stem_stride=stem_stride)
  # The message names stem_stride=1 only if that helps.
  assert ("stem_stride=1" in str(error.value)) == (stem_stride == 2)


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("width", 0.0),
    ("width", -1.0),
    ("depth", 0.0),
    ("depth", -0.5),
    ("depth", math.nan),
    ("dropout", 1.0),
    ("dropout", -0.1),
    ("survival_prob", 0.0),
    ("survival_prob", 1.1),
    ("stem_stride", 3),
  ],
)
def test_values_out_of_range(field, value):
  with pytest.raises(ValueError, match=rf"{field} must be .*got {value}$"):
    model_spec("b0", **{field: value})


def test_checks_hold_without_the_family():
  with pytest.raises(
    ValueError, match="depth must be above 0 and at most 100, got 0"
  ):
    ModelSpec(width=1.0, depth=0, resolution=224, dropout=0.2)


@pytest.mark.parametrize(
  ("name", "near"),
  [("B5", "'b5'"), ("b9", "'b8'"), ("l3", "'l2'"), ("resnet50", "'b0'")],
)
def test_unknown_name_suggests(name, near):
  with pytest.raises(ValueError, match=f"unknown model '{name}'.*{near}"):
    model_spec(name)
