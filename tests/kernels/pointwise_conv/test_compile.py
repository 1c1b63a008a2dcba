"""The kernels of 1x1 convolutions through the real TPU compiler, without one.

Shapes of B2 with 64 images and of B5 with 32, in the bands that the model
takes, and of their last blocks.
"""

import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from support.libtpu_mark import NEEDS_LIBTPU
from support.slow_case import slow

from podscale.bench.estimated.static.compile import compiled, lowered_for
from podscale.kernels import gated_pointwise_conv_bn, pointwise_conv_bn

pytestmark = NEEDS_LIBTPU
F32, BF16 = jnp.float32, jnp.bfloat16

# Shape of the narrow array, channels of the wide one and bands.
CASES = [
  ((13, 65, 64, 120), 720, 5),
  slow((26, 130, 64, 80), 480, 5),
  slow((19, 228, 32, 288), 576, 12),
  slow((29, 29, 32, 176), 1056, 1),
  slow((15, 15, 32, 304), 1824, 1),
]
CHIPS = ["v5e", slow("v6e"), slow("v4"), slow("v5p")]


def of(shape, dtype=BF16):
  return jax.ShapeDtypeStruct(shape, dtype)


def check(chip, function, *arguments):
  """It compiles, to one kernel, without a copy of the wide array."""

  def gradients(*arguments):
    *operands, dy = arguments
    (y, moments), vjp = jax.vjp(function, *operands)
    return y, vjp((dy, jax.tree.map(jnp.ones_like, moments)))

  # With layouts fixed XLA copies its own product to that of the result.
  lowered = lowered_for(gradients, *arguments, chip=chip, free_layouts=True)
  with compiled(lowered) as compilation:
    assert compilation.hlo.count('"tpu_custom_call"') == 1
    wide = max(math.prod(a.shape) for a in (arguments[0], arguments[-1]))
    for dims, op in re.findall(
      r"\w+\[([\d,]+)\]\S* (copy|transpose)\(", compilation.hlo
    ):
      assert math.prod(map(int, dims.split(","))) < wide, op


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize(("narrow", "wide", "bands"), CASES)
def test_expansion(narrow, wide, bands, chip):
  op = partial(pointwise_conv_bn, bands=bands, implementation="pallas_tpu")
  kernel = of((narrow[3] // bands, wide // bands))
  check(chip, op, of(narrow), kernel, of((*narrow[:3], wide)))


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize(("narrow", "wide", "bands"), CASES)
def test_gated(narrow, wide, bands, chip):
  def op(x, kernel, scale, offset):
    return gated_pointwise_conv_bn(
      *(x, kernel, scale, offset),
      lambda slope, mean: (slope * mean).astype(BF16),
      jnp.ones(()),
      activation="silu",
      bands=bands,
      implementation="pallas_tpu",
    )

  kernel = of((wide // bands, narrow[3] // bands))
  vector = of((wide // bands,), F32)
  x = of((*narrow[:3], wide))
  check(chip, op, x, kernel, vector, vector, of(narrow))
