"""The depthwise kernels through the real TPU compiler, without a TPU.

A sample of layers by default; `make test-tpu-compile` has all of B0 to B7.
"""

import importlib.util
import math
import re

import jax
import jax.numpy as jnp
import pytest

from podscale.bench.shapes import DepthwiseShape, family_shapes
from podscale.bench.static.compile import compiled
from podscale.kernels import depthwise_conv_bn

pytestmark = [
  pytest.mark.libtpu,
  pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu, the TPU's compiler, is not installed",
  ),
]
SAMPLE = [
  DepthwiseShape(56, 144, 3, 1),
  DepthwiseShape(33, 288, 3, 2),
  DepthwiseShape(14, 672, 5, 2),
  DepthwiseShape(7, 1152, 5, 1),
]


def forward_and_backward(x, filters, scale, offset, dy, dmoments, *, stride):
  def op(*args):
    return depthwise_conv_bn(
      *args, activation="silu", stride=stride, implementation="pallas_tpu"
    )

  results, vjp = jax.vjp(op, x, filters, scale, offset)
  return results, vjp((dy, results[1]._replace(mean=dmoments, m2=dmoments)))


def check(shape, batch, chip):
  """It compiles, to two kernels and nothing else that is large."""
  size, channels, kernel, stride = shape
  out = -(-size // stride)

  def array(*dims, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct(dims, dtype)

  vector = array(channels, dtype=jnp.float32)
  arguments = (
    array(size, size, batch, channels),
    array(kernel, kernel, channels),
    vector,
    vector,
    array(out, out, batch, channels),
    vector,
  )

  def function(*args):
    return forward_and_backward(*args, stride=stride)

  with compiled(
    function, *arguments, chip=chip, free_layouts=False
  ) as compilation:
    assert compilation.hlo.count('"tpu_custom_call"') == 2
    smallest = out * out * batch * channels
    for dims, op in re.findall(
      r"\w+\[([\d,]+)\]\S* (copy|transpose|fusion)\(", compilation.hlo
    ):
      assert math.prod(map(int, dims.split(","))) < smallest, op


@pytest.mark.parametrize("chip", ["v3", "v5e", "v6e"])
@pytest.mark.parametrize("shape", SAMPLE, ids=str)
def test_a_sample_of_layers(shape, chip):
  check(shape, 64, chip)


@pytest.mark.parametrize("chip", ["v4", "v5p", "tpu7x"])
def test_other_generations(chip):
  check(SAMPLE[1], 64, chip)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("chip", "batch"), [("v3", 32), ("v3", 64), ("v5e", 128), ("v6e", 128)]
)
@pytest.mark.parametrize("shape", family_shapes(), ids=str)
def test_every_layer_of_the_family(shape, chip, batch):
  check(shape, batch, chip)
