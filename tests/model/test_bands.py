"""Choice of bands, against a search of all plans with a second cost model."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.abstract_tpu import on
from support.first_block import sizes_and_blocks

from podscale.kernels import (
  default_implementation,
  depthwise_conv_bn,
  describe,
)
from podscale.model import bands as bands_module
from podscale.model.bands import Sizes, choose_bands
from podscale.model.spec import BlockSpec

BF16 = jnp.dtype(jnp.bfloat16)


def chosen(name, chip=None, batch=64):
  sizes, blocks = sizes_and_blocks(name, batch)
  if chip is None:
    return sizes, blocks, choose_bands(sizes, blocks)
  with on(chip):
    return sizes, blocks, choose_bands(sizes, blocks)


def test_without_a_tpu_images_stay_as_they_are():
  _, blocks, bands = chosen("b0")
  assert bands == [1] * len(blocks)


def test_where_the_kernel_does_not_run_images_stay_as_they_are():
  _, blocks, bands = chosen("b0", "v4")
  with on("v4"):
    x = jax.ShapeDtypeStruct((112, 112, 64, 128), BF16)
    filters = jax.ShapeDtypeStruct((3, 3, 128), BF16)
    assert describe(depthwise_conv_bn, x, filters).implementation == "xla"
  assert bands == [1] * len(blocks)


def test_with_a_named_implementation_images_stay_as_they_are():
  with default_implementation("xla"):
    _, blocks, bands = chosen("b0", "v5e")
  assert bands == [1] * len(blocks)


@pytest.mark.parametrize("chip", ["v3", "v5e", "v6e"])
@pytest.mark.parametrize("name", ["b0", "b2", "b5"])
def test_bands_fill_the_lanes_of_the_first_blocks(name, chip):
  sizes, blocks, bands = chosen(name, chip, batch=32)

  def share(channels):
    return channels / (-(-channels // 128) * 128)

  assert len(bands) == len(blocks)
  for block, count in zip(blocks, bands, strict=True):
    if count > 1:
      assert sizes.rows % (count * block.stride) == 0
      assert share(count * block.expanded) >= share(block.expanded)
      assert share(count * block.in_filters) > share(block.in_filters)
    sizes = sizes.strided(block.stride)
  # 32 to 48 channels leave at least two thirds of the lanes empty.
  filled = share(bands[0] * blocks[0].expanded)
  assert filled >= 1.5 * share(blocks[0].expanded)
  # Blocks with hundreds of channels gain nothing from bands.
  assert set(bands[len(bands) // 2 :]) == {1}


# All plans of small networks


def elements(rows, columns, channels, bands):
  """Count the elements of one image's tensor, its lanes filled up to 128."""
  lanes = 128 * np.ceil(bands * channels / 128)
  return rows / bands * columns * lanes


def block_cost(rows, columns, block, bands):
  """Add up the passes of one block, in elements, by the numbers of bands.py."""
  out = np.ceil(rows / block.stride), np.ceil(columns / block.stride)
  wide = 12.0
  if bands > 1:
    wide += 5 * (block.kernel_size - 1) / (rows / bands)
  cost = wide * elements(rows, columns, block.expanded, bands)
  cost += wide * elements(*out, block.expanded, bands)
  for passes, size, channels in (
    (6, (rows, columns), block.in_filters),
    (10, out, block.out_filters),
  ):
    copies = 2 if bands * channels < 128 else 1
    cost += passes * copies * elements(*size, channels, bands)
  project = elements(*out, block.out_filters, bands)
  cost += 4 * project * np.ceil(bands * block.expanded / 128)
  if block.expanded != block.in_filters:
    expand = elements(rows, columns, block.expanded, bands)
    cost += 4 * expand * np.ceil(bands * block.in_filters / 128)
  return cost / 0.95 if bands > 1 else cost


def change_cost(rows, columns, channels, have, want):
  """Add up the passes between two numbers of bands, in elements."""
  if have == want:
    return 0.0
  if 1 not in (have, want) and 0 in (have % want, want % have):
    moved = elements(rows, columns, channels, have)
    return 3 * (moved + elements(rows, columns, channels, want))
  whole = elements(rows, columns, channels, 1)
  return 8 * whole * ((have > 1) + (want > 1))


def all_plans(rows, columns, blocks):
  """Return the cost of every plan: an array with one axis for each block."""
  total = np.zeros((1,) * len(blocks))
  options, channels, before = [], None, None
  for axis, block in enumerate(blocks):
    possible = [1] + [b for b in range(2, 16) if rows % (b * block.stride) == 0]
    shape = [1] * len(blocks)
    shape[axis] = len(possible)
    costs = [block_cost(rows, columns, block, b) for b in possible]
    total = total + np.reshape(costs, shape)
    if before is not None:
      shape[axis - 1] = len(before)
      changes = [
        change_cost(rows, columns, channels, *pair)
        for pair in itertools.product(before, possible)
      ]
      total = total + np.reshape(changes, shape)
    options.append(possible)
    rows, columns = -(-rows // block.stride), -(-columns // block.stride)
    channels, before = block.out_filters, possible
  ends = [change_cost(rows, columns, channels, b, 1) for b in before]
  return options, total + np.array(ends)


def random_blocks(rng):
  """Draw four blocks, some with strides, some without an expansion."""
  channels = int(rng.choice([8, 16, 24, 32]))
  for _ in range(4):
    out = int(rng.choice([8, 16, 24, 32, 40, 64, 160]))
    yield BlockSpec(
      kernel_size=int(rng.choice([3, 5, 7])),
      stride=int(rng.choice([1, 1, 2])),
      in_filters=channels,
      expanded=channels * int(rng.choice([1, 2, 3, 6])),
      out_filters=out,
      squeezed=1,
      survival_prob=1.0,
    )
    channels = out


@pytest.mark.parametrize("seed", range(150))
def test_no_plan_is_cheaper(monkeypatch, seed):
  monkeypatch.setattr(bands_module, "_has_kernel", lambda *_: True)
  rng = np.random.default_rng(seed)
  blocks = list(random_blocks(rng))
  rows, columns = (int(rng.choice([24, 30, 48, 60, 120])) for _ in range(2))
  plan = choose_bands(Sizes(rows, columns, 8, BF16), blocks)
  options, costs = all_plans(rows, columns, blocks)
  place = tuple(o.index(b) for o, b in zip(options, plan, strict=True))
  assert costs[place] == pytest.approx(costs.min(), rel=1e-12)


# Numbers of bands that the depthwise kernel supports


@pytest.mark.parametrize(
  ("kernel_size", "stride", "possible"),
  [
    (3, 1, [1, 3, 4, 6, 8, 12]),  # v5e leaves 2 bands of 16 channels to XLA
    (3, 2, [1, 3, 4, 6, 12]),  # 8 bands would have 3 rows each, an odd number
    (7, 1, [1, 3, 4, 6, 8]),  # 12 bands would have 2 rows, the filter reads 3
  ],
)
def test_bands_have_whole_rows_and_a_kernel(kernel_size, stride, possible):
  block = BlockSpec(kernel_size, stride, 16, 16, 16, 4, 1.0)
  with on("v5e"):
    found = bands_module._possible(Sizes(24, 24, 64, BF16), block)
  assert found == possible


def test_a_band_has_the_rows_and_channels_that_the_kernel_runs_on(monkeypatch):
  asked, original = [], describe

  def recorded(op, x, filters, *, stride, bands):
    asked.append((op, x.shape, x.dtype, filters.shape, stride, bands))
    assert filters.dtype == x.dtype
    return original(op, x, filters, stride=stride, bands=bands)

  block = BlockSpec(5, 2, 16, 96, 24, 4, 1.0)
  monkeypatch.setattr(bands_module.kernels, "describe", recorded)
  bands_module._has_kernel(Sizes(24, 20, 8, BF16), block, 3)
  shapes = (8, 20, 8, 3 * 96), BF16, (5, 5, 96)
  assert asked == [(depthwise_conv_bn, *shapes, 2, 3)]
