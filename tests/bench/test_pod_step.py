"""The training step compiled for slices that are not there."""

import dataclasses
import math
import re

import pytest
from libtpu_mark import NEEDS_LIBTPU

from podscale.bench.pod_step import lower_step
from podscale.bench.static import slice_devices
from podscale.train.presets import get_preset

pytestmark = [pytest.mark.slow, *NEEDS_LIBTPU]


def check(lowered, norms):
  """One all-reduce for every batch norm and direction, and three for the rest.

  Those are of the norms, the loss and the penalty, and of the running
  statistics. Gradients are scattered and weights gathered, once for each
  dimension of the torus, and the step makes no other array of all weights than
  the one gathered, and the one that the gradients are written into, in place.
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
  # XLA may move what was gathered out of VMEM or into it.
  for moved in re.findall(r"%(copy-start\S*) = .*S\(1\)", entry):
    entry = re.sub(rf"= \S+ copy-done\(%{re.escape(moved)}\)", "", entry)
  whole = [
    (name, op)
    for name, dims, op in re.findall(
      r"%(\S+) = f32\[([\d,]+)\]\S* ([\w\-]+)\(", entry
    )
    if math.prod(map(int, dims.split(","))) == 128 * packing.rows
  ]
  # Gathered; written by kernels; and written a large gradient at a time.
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
