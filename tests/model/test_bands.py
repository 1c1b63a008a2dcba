import jax
import jax.numpy as jnp
import pytest
from support.abstract_tpu import on
from support.first_block import sizes_and_blocks

from podscale.kernels import (
  default_implementation,
  depthwise_conv_bn,
  describe,
)
from podscale.model.bands import choose_bands

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
  # 32 to 48 channels leave two thirds empty or more.
  filled = share(bands[0] * blocks[0].expanded)
  assert filled >= 1.5 * share(blocks[0].expanded)
  # Where there are hundreds of channels bands gain nothing.
  assert set(bands[len(bands) // 2 :]) == {1}
