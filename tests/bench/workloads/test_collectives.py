"""Collectives of a step, on 8 CPU devices and for a slice."""

import json
import statistics

import jax
import numpy as np
import pytest
from support.libtpu_mark import NEEDS_LIBTPU

from podscale.bench.__main__ import main
from podscale.bench.chips import CHIPS
from podscale.bench.estimated.collective_cost import HOP_US
from podscale.bench.estimated.collectives import (
  hop_rows,
  moment_rows,
  paper_table_rows,
)
from podscale.bench.estimated.static import slice_devices
from podscale.bench.workloads.collectives import (
  Sizes,
  collectives_in,
  model_sizes,
  step_parts,
)
from podscale.collectives import group_mesh

SIZES = Sizes(
  channels=(8, 24),
  params={
    name: jax.ShapeDtypeStruct(shape, np.float32)
    for name, shape in (("kernel", (40, 30)), ("bias", (30,)))
  },
)


def parts_by_name(group_size=4):
  parts = step_parts(SIZES, group_mesh(group_size=group_size))
  return {part.name: part for part in parts}


def run(part):
  random = np.random.default_rng(0)
  values = [random.normal(size=x.shape).astype(x.dtype) for x in part.args]
  return jax.device_get(part.function(*values))


def test_all_implementations_of_a_part_give_the_same():
  parts = parts_by_name()
  plain = run(parts["moments: mean, mean square"])
  for name in ("moments: gathered", "moments: about a pivot"):
    np.testing.assert_allclose(run(parts[name]), plain, rtol=1e-4, atol=1e-5)
  each = run(parts["gradients: a psum each"])
  fused = run(parts["gradients: mean_gradients"])
  jax.tree.map(np.testing.assert_array_equal, each, fused)
  gathered = run(parts["gradients: scattered, gathered"])
  # Leaves are sorted: the bias is first and has a row of its own.
  np.testing.assert_allclose(
    gathered[:, 0, :30], fused["bias"], rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize("model", ["b2", "b5"])
def test_sizes_of_a_model(model):
  sizes = model_sizes(model)
  layers, channels, params = {
    "b2": (69, 33784, 9109994),
    "b5": (116, 86368, 30389784),
  }[model]
  assert len(sizes.channels) == layers
  assert sum(sizes.channels) == channels
  assert sizes.gradient_bytes == 4 * params


def test_counts_what_is_in_a_program():
  hlo = """
  %a.1 = f32[2,8]{1,0:T(8,128)} all-reduce(%x), channel_id=1
  ROOT %b = (f32[8]{0}, s32[]{:T(128)}) all-reduce-start(%y, %z)
  %c = bf16[3,128]{1,0:T(8,128)(2,1)} all-gather(%c.1), dimensions={0}
  %d = f32[8]{0} add(%a, %all-reduce.2)
  """
  assert collectives_in(hlo) == (3, 64 + 36 + 768)


def test_paper_table_adds_up_the_collectives_of_a_step():
  rows = {(row["model"], row["cores"]): row for row in paper_table_rows()}
  row = rows["b5", 1024]
  assert (row["batch"], row["published %"]) == (32768, 1.03)
  # 32,768 images at 77.44 images a millisecond.
  assert row["step ms"] == pytest.approx(423.14, abs=0.01)
  # Groups of 4 cores, 2 chips: for each of 116 batch norms and 86,368 channels
  # one ring of float32 sums of two moments forward and one backward. A ring
  # has a barrier and 3 steps, each of 2.9 us and 0.88 of 83 GB/s.
  step, link = 2.9, 0.88 * 83e3
  moments = 2 * (116 * (1 + 3) * step + 3 * 8 * 86368 / link)
  assert row["moments us"] == pytest.approx(moments)
  # 121.6 MB over 16 x 32 chips with 2 cores: half in each order of the
  # dimensions, from both sides; 32 devices in each dimension.
  half = 4 * 30389784 / 2 / 2
  one_dimension = [
    16 * step + 31 * part / 32 / link for part in (half, half / 32)
  ]
  assert row["gradients us"] == pytest.approx(2 * sum(one_dimension))
  share = (row["moments us"] + row["gradients us"]) / row["step ms"] / 10
  assert row["all-reduce %"] == pytest.approx(share)
  # The latency of a step was fitted to these shares, which contain waiting.
  ratios = [row["all-reduce %"] / row["published %"] for row in rows.values()]
  assert statistics.median(ratios) == pytest.approx(1, abs=0.02)
  assert 0.65 < min(ratios) < max(ratios) < 1.35


@pytest.mark.slow
def test_prints_a_row_for_each_part_as_json(capsys):
  assert main(["collectives", "--runs", "1", "--json"]) == 0
  rows = json.loads(capsys.readouterr().out)
  assert len(rows) == 7
  assert all(row["median_s"] > 0 and row["collectives"] > 0 for row in rows)


def test_a_group_that_does_not_divide_is_one_line(capsys):
  assert main(["collectives", "--group-size", "3"]) == 2
  error = capsys.readouterr().err
  assert error.splitlines() == [
    "podscale-bench: a group of 3 does not divide 8 devices; nearest that do: "
    "2 and 4"
  ]


class TestSlices:
  pytestmark = NEEDS_LIBTPU

  @pytest.mark.parametrize(
    ("topology", "size", "tile", "widest", "contiguous"),
    [
      ("v3:16x32", 64, "4x8x1", 10, 16),
      ("v3:32x32", 128, "8x8x1", 14, 32),
      ("v4:8x8x8", 64, "4x4x4", 9, 14),
      ("v5e:16x16", 32, "4x8x1", 10, 16),
      ("v5p:8x8x8", 32, "4x4x2", 7, 10),
      ("v6e:16x16", 64, "8x8x1", 14, 18),
    ],
  )
  def test_hops(self, topology, size, tile, widest, contiguous):
    devices = slice_devices(topology)
    rows = hop_rows(topology[: topology.index(":")], devices)
    assert rows[-1]["group"] == len(devices)
    for row in rows:
      assert row["hops, auto"] <= row["hops, contiguous"]
      assert row["ring, auto"] <= min(1, row["ring, contiguous"])
    row = rows[size.bit_length() - 1]
    assert (row["group"], row["tile"]) == (size, tile)
    assert (row["hops, auto"], row["hops, contiguous"]) == (widest, contiguous)

  def test_parts_compiled_for_a_slice(self):
    mesh = group_mesh(slice_devices("v5e:4x4"), 4)
    counts = {}
    for part in step_parts(SIZES, mesh):
      hlo = part.function.lower(*part.args).compile().as_text()
      counts[part.name], _ = collectives_in(hlo)
    # Two layers; the first one's input receives only its own cotangent.
    assert counts["moments: about a pivot"] <= 4
    assert counts["gradients: mean_gradients"] == 1

  def test_batch_norms_cost_by_group(self):
    rows = moment_rows("v5e", slice_devices("v5e:4x4"))
    by_case = {(row["model"], row["images on a device"]): row for row in rows}
    assert len(by_case) == len(rows) == 6
    b5 = by_case["b5", 64]
    assert (b5["group"], b5["tile"]) == (2, "1x2x1")
    # Two rings of two steps for each of 116 batch norms and 86,368 channels.
    step, link = CHIPS["v5e"].step_us, 0.88 * 50e3
    ring = 2 * (116 * 2 * step + 8 * 86368 / link)
    assert b5["ring us"] == pytest.approx(ring)
    # A barrier and a message over one link; each message crosses that link.
    exchange = 2 * (116 * 2 * HOP_US + 8 * 86368 / link)
    assert b5["exchange us"] == pytest.approx(exchange)
    assert by_case["b5", 32]["ring us"] > 1.9 * b5["ring us"]

  def test_groups_that_do_not_divide_a_slice_are_left_out(self):
    assert moment_rows("v5e", slice_devices("v5e:4x4")[:1]) == []
