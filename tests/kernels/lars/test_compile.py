"""LARS update of packed buffers, compiled by the real TPU compiler."""

import math
import re

import jax
import pytest
from support.libtpu_mark import NEEDS_LIBTPU

from podscale.bench.estimated.static import slice_devices
from podscale.bench.estimated.static.compile import compiled, lowered_for
from podscale.bench.workloads.collectives import model_sizes
from podscale.bench.workloads.lars import sharded_update, updates

pytestmark = NEEDS_LIBTPU


def check(hlo, shape):
  """Check for two kernels and no other operation on an array this large."""
  assert hlo.count('"tpu_custom_call"') == 2
  for dims, op in re.findall(
    r"= f32\[([\d,]+)\]\S* (copy|fusion|concatenate|pad|reshape)\(", hlo
  ):
    assert math.prod(map(int, dims.split(","))) < math.prod(shape), op


@pytest.mark.parametrize("chip", ["v3", "v5e", "v6e"])
def test_two_kernels_and_no_copy(chip):
  packed = updates(model_sizes("b0").params)[1]
  lowered = lowered_for(
    packed.function, *packed.args, chip=chip, donate=packed.donate
  )
  with compiled(lowered) as compilation:
    check(compilation.hlo, packed.args[0].buffer.shape)


@pytest.mark.parametrize("chip", ["v3", "v5e", "v6e"])
def test_gradients_are_packed_by_kernels(chip):
  to_pack = updates(model_sizes("b0").params)[2]
  lowered = lowered_for(
    to_pack.function,
    *to_pack.args,
    chip=chip,
    free_layouts=True,
    donate=to_pack.donate,
  )
  with compiled(lowered) as compilation:
    hlo = compilation.hlo
  assert len(re.findall(r"%pack\S* = \S+ custom-call\(", hlo)) == 9
  # One such operation may write the zeros behind the last leaf.
  assert len(re.findall(r" dynamic-update-slice\(", hlo)) <= 1


def test_shards_in_a_slice():
  devices = slice_devices("v5e:4x4")
  lowered = sharded_update(model_sizes("b0").params, devices)
  hlo = lowered.compile().as_text()
  buffer = jax.tree.leaves(lowered.args_info)[0]
  rows, lanes = buffer.shape
  check(hlo, (rows // 16, lanes))
  # One all-reduce adds the sums of the norms.
  assert len(re.findall(r" all-reduce(?:-start)?\(", hlo)) == 1
