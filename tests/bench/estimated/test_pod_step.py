"""The training step compiled ahead of time for slices."""

import dataclasses
import math
import re

import pytest
from support.libtpu_mark import NEEDS_LIBTPU

from podscale.bench.compiled.hlo import Instruction, read_instructions
from podscale.bench.estimated.pod_step import lower_step
from podscale.bench.estimated.static import slice_devices
from podscale.bench.estimated.step import pod_config
from podscale.train.settings.presets import get_preset

pytestmark = [pytest.mark.slow, *NEEDS_LIBTPU]


def check(lowered, norms):
  """Check the collectives of a step, and its arrays of all weights.

  Each batch norm has one all-reduce in each direction. Three more sum the
  norms, the loss with the penalty, and the running statistics. Gradients are
  scattered and weights gathered once for each dimension of the torus. The only
  arrays of all weights are the gathered one and the buffer into which the step
  writes the gradients in place.
  """
  means = lowered.args_info[0][0].variables.means
  channels = [shape[0] for shape in means.packing.shapes]
  assert len(channels) == norms
  hlo = lowered.compile().as_text()
  assert " all-to-all" not in hlo
  for op in ("all-gather", "reduce-scatter"):
    assert 1 <= len(re.findall(rf" {op}(?:-start)?\(", hlo)) <= 2
  shapes = re.findall(r" = (.*?) all-reduce(?:-start)?\(", hlo)
  assert len(shapes) <= 2 * norms + 3
  single = [re.fullmatch(r"f32\[(\d+)\]\{\S*", shape) for shape in shapes]
  sizes = [int(match[1]) for match in single if match]
  statistics = 3 * 128 * means.packing.rows
  assert sorted(size for size in sizes if size != statistics) == sorted(
    2 * c for c in (*channels, *channels)
  )
  packing = lowered.args_info[0][0].variables.params.packing
  entry = hlo[hlo.index("\nENTRY") :]
  # XLA may move the gathered weights out of VMEM or into it.
  for moved in re.findall(r"%(copy-start\S*) = .*S\(1\)", entry):
    entry = re.sub(rf"= \S+ copy-done\(%{re.escape(moved)}\)", "", entry)
  whole = [
    (name, op)
    for name, dims, op in re.findall(
      r"%(\S+) = f32\[([\d,]+)\]\S* ([\w\-]+)\(", entry
    )
    if math.prod(map(int, dims.split(","))) == 128 * packing.rows
  ]
  # Gathered, written by kernels, or written one large gradient at a time.
  assert {op for _, op in whole} <= {
    *("all-gather", "custom-call", "fusion", "bitcast", "dynamic-update-slice")
  }
  fusions = [name for name, op in whole if op == "fusion"]
  assert all("dynamic-update-slice" in name for name in fusions)


def test_collectives_of_a_small_step():
  smoke = dataclasses.replace(get_preset("smoke"), batch_size=128)
  check(lower_step(smoke, slice_devices("v5e:4x4")), norms=22)


@pytest.mark.timeout(3600)  # ten minutes of compiling on an idle machine
def test_collectives_of_b5_on_1024_cores():
  check(lower_step(get_preset("b5-32k"), slice_devices("v3:16x32")), norms=116)


# Origins of operations that move whole images and compute nothing, and why.
LISTED = {
  "stem": "the convolution reads images with their rows cut in bands",
  "change_bands": "blocks of few channels have more bands than later ones",
}
# 7x7 of 192 channels: the smallest that a block of B0 passes on, of an image.
SMALLEST = 7 * 7 * 192


def moves_images(instruction: Instruction, batch: int) -> bool:
  """Return True if an instruction only moves a whole activation.

  Rows at the edges of bands are not the whole. A copy that XLA starts between
  HBM and VMEM does not count: it stands for loading.
  """
  moving = {"copy", "transpose", "slice", "concatenate", "pad", "reverse"}
  moving |= {"dynamic-slice", "dynamic-update-slice"}
  idle = {"parameter", "constant", "bitcast", "reshape", "tuple", "broadcast"}
  # XLA concatenates by the maximum of padded arrays.
  idle |= {"get-tuple-element", "maximum"}
  ops = {instruction.opcode}
  if instruction.opcode == "fusion":
    lines = instruction.text.splitlines()[1:]
    ops = {
      match[1]
      for line in lines
      if (match := re.match(r"\s*(?:ROOT )?%\S+ = .*? ([a-z][\w\-]*)\(", line))
    }
  if not ops & moving or not ops <= moving | idle:
    return False
  dims = re.search(r"\[([\d,]*)\]", instruction.shape)
  shape = [int(size) for size in dims[1].split(",") if size] if dims else []
  # XLA may put columns and images together; weights are matrices.
  whole = len(shape) >= 3 and shape[0] > 2
  return whole and math.prod(shape) >= batch * SMALLEST


@pytest.mark.timeout(3600)
def test_images_are_moved_only_where_it_is_listed():
  batch, devices = 64, slice_devices("v5e:2x2")
  config = pod_config("b0", batch * len(devices))
  hlo = lower_step(config, devices).compile().as_text()
  moves = [
    instruction
    for instruction in read_instructions(hlo).values()
    if moves_images(instruction, batch)
  ]
  origins = {
    next((x for x in LISTED if x in move.op_name), move.op_name)
    for move in moves
  }
  assert {"stem"} <= origins <= set(LISTED)
