"""Compilation of the depthwise kernels by the real TPU compiler, without a TPU.

A sample of layers by default; `make test-tpu-compile` has all of B0 to B7.
"""

import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from support.libtpu_mark import NEEDS_LIBTPU
from support.slow_case import slow

from podscale.bench.estimated.kernels import (
  layer_arguments,
  ours,
  with_gradients,
)
from podscale.bench.estimated.static.compile import compiled, lowered_for
from podscale.bench.layers import DepthwiseShape, family_shapes
from podscale.kernels import depthwise_conv_bn
from podscale.kernels.common.activation import ACTIVATIONS

pytestmark = NEEDS_LIBTPU
SAMPLE = [
  DepthwiseShape(56, 144, 3, 1),
  DepthwiseShape(33, 288, 3, 2),
  DepthwiseShape(14, 672, 5, 2),
  DepthwiseShape(7, 1152, 5, 1),
]


def check(shape, batch, chip, layout="HWNC", dtype=jnp.bfloat16):
  """Compile a layer; expect two kernels and no other op of their size."""
  _, arguments = layer_arguments(shape, batch, layout)
  arguments = [
    jax.ShapeDtypeStruct(x.shape, dtype if x.dtype == jnp.bfloat16 else x.dtype)
    for x in arguments
  ]
  op = partial(ours, stride=shape.stride, layout=layout)
  function = partial(with_gradients, op)
  with compiled(lowered_for(function, *arguments, chip=chip)) as compilation:
    assert compilation.hlo.count('"tpu_custom_call"') == 2
    smallest = math.prod(arguments[4].shape)  # dy
    for dims, op in re.findall(
      r"\w+\[([\d,]+)\]\S* (copy|transpose|fusion)\(", compilation.hlo
    ):
      assert math.prod(map(int, dims.split(","))) < smallest, op


@pytest.mark.parametrize("chip", ["v3", "v5e", slow("v6e")])
@pytest.mark.parametrize("shape", [slow(SAMPLE[0]), *SAMPLE[1:]], ids=str)
def test_a_sample_of_layers(shape, chip):
  check(shape, 64, chip)


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["v4", "v5p", "tpu7x"])
def test_other_generations(chip):
  check(SAMPLE[1], 64, chip)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("shape", "batch", "chip"),
  [
    (DepthwiseShape(112, 32, 3, 1), 64, "v3"),
    (DepthwiseShape(28, 240, 5, 1), 128, "v5e"),
    (DepthwiseShape(190, 48, 3, 1), 64, "v5e"),  # needs all of VMEM
    (DepthwiseShape(28, 240, 3, 2), 128, "v6e"),
  ],
  ids=str,
)
def test_channels_in_the_sublanes(shape, batch, chip):
  check(shape, batch, chip, "HWCN")


@pytest.mark.parametrize("layout", ["HWNC", "HWCN"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("chip", ["v3", "v5e"])
def test_sizes_that_fill_no_register(chip, layout, dtype):
  check(DepthwiseShape(5, 20, 7, 1), 3, chip, layout, jnp.dtype(dtype))


@pytest.mark.slow
@pytest.mark.parametrize(
  ("chip", "batch"), [("v3", 32), ("v3", 64), ("v5e", 128), ("v6e", 128)]
)
@pytest.mark.parametrize("shape", family_shapes(), ids=str)
def test_every_layer_of_the_family(shape, chip, batch):
  check(shape, batch, chip)
  if batch == 128:
    check(shape, batch, chip, "HWCN")


@pytest.mark.parametrize("chip", ["v5e", slow("v3")])
@pytest.mark.parametrize(
  "settings",
  [{"activation": name} for name in ACTIVATIONS]
  + [{"stride": 2, "padding": 1}, {"padding": ((2, 0), (0, 2))}]
  + [{"moments": False}],
  ids=str,
)
def test_settings_of_other_models(settings, chip):
  shape = DepthwiseShape(6, 20, 3, settings.get("stride", 1))
  _, arguments = layer_arguments(shape, 8, "HWNC")

  op = partial(depthwise_conv_bn, **settings, implementation="pallas_tpu")

  def gradients(x, filters, scale, offset, *_):
    results, vjp = jax.vjp(op, x, filters, scale, offset)
    return results, vjp(jax.tree.map(jnp.ones_like, results))

  with compiled(lowered_for(gradients, *arguments, chip=chip)) as compilation:
    assert compilation.hlo.count('"tpu_custom_call"') == 2
