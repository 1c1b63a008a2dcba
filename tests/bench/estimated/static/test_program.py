"""Stored dumps: costs of whole programs and of routines alone."""

import shutil

import pytest

from podscale.bench.chips import CHIPS
from podscale.bench.estimated.static.interlocks import utilisation_files
from podscale.bench.estimated.static.machine import Machine
from podscale.bench.estimated.static.program import (
  cost_of,
  program_files,
  simulate_program,
)
from podscale.bench.estimated.static.routine import Routine

# Cycles and HBM bytes of the whole program; and for its routines run alone
# cycles, bundles, cycles of the bundles, bytes, vector operations. Translated
# and interpreted code have to give the same figures, each by its own means.
PROGRAMS = {
  "loop_v5e": (
    *(29356, 3145728),
    {
      "copy.11": (258, 258, 258, 0, 0),
      "convert.1": (132, 132, 132, 0, 128),
      "fusion.8": (2228, 1823, 2228, 0, 1536),
    },
  ),
  "small_v2": (
    *(3171, 525312),
    {
      "multiply_reduce_fusion": (695, 65, 69, 132096, 79),
      "small.1": (2112, 1307, 1435, 393216, 136),
    },
  ),
  "small_v3": (
    *(3648, 525312),
    {
      "multiply_reduce_fusion": (832, 65, 69, 132096, 79),
      "small.1": (2450, 1307, 1435, 393216, 136),
    },
  ),
  "small_v4": (
    *(5379, 262656),
    {
      "multiply_reduce_fusion": (756, 115, 158, 512, 79),
      "small.1": (4200, 1647, 1711, 262144, 136),
    },
  ),
  "small_v5e": (
    *(10477, 262656),
    {
      "multiply_reduce_fusion": (1907, 52, 92, 512, 71),
      "small.1": (8318, 1125, 1327, 262144, 132),
    },
  ),
  "small_v5p": (
    *(17113, 459264),
    {
      "multiply_reduce_fusion": (4465, 74, 148, 66048, 40),
      "small.1": (11925, 1873, 2003, 393216, 132),
    },
  ),
  "small_v6e": (
    *(12201, 262656),
    {
      "multiply_reduce_fusion": (2210, 54, 93, 512, 71),
      "small.1": (9736, 1189, 1869, 262144, 132),
    },
  ),
  "small_tpu7x": (
    *(6710, 262656),
    {
      "multiply_reduce_fusion": (2397, 58, 99, 512, 71),
      "small.1": (1597, 1227, 1597, 0, 136),
    },
  ),
}


def simulate_routine(path, chip):
  """Run one routine alone and once, on an idle core."""
  routine = Routine(path, chip, utilisation_files(path.parent))
  return cost_of(Machine(chip, [routine]).run(routine), chip)


# Latencies, in microseconds, with which the figures above were derived.
LATENCIES = {"v2": 0.26, "v3": 0.26, "v4": 0.57}


def chip_of(name):
  """Return a program's chip, at the nominal bandwidth of HBM."""
  chip = name.split("_")[1]
  return CHIPS[chip]._replace(
    hbm_efficiency=1.0, dma_share=1.0, latency_us=LATENCIES.get(chip, 1.21)
  )


@pytest.mark.parametrize("name", PROGRAMS)
def test_costs_of_programs(dumps, name, code):
  cycles, hbm_bytes, kernels = PROGRAMS[name]
  chip = chip_of(name)
  program = simulate_program(dumps / name, chip)
  # The figures above are rounded to whole cycles.
  assert program.microseconds * chip.mhz == pytest.approx(cycles, abs=0.5)
  parts = [*program.routines, program.top_level]
  assert sum(part.hbm_bytes for part in parts) == hbm_bytes
  assert {part.name for part in program.routines} == set(kernels)
  assert program.microseconds == pytest.approx(
    sum(part.microseconds for part in parts)
  )
  for part in parts:
    assert part.microseconds == pytest.approx(part.issue_us + part.stall_us)


@pytest.mark.parametrize("name", PROGRAMS)
def test_costs_of_routines_alone(dumps, name, code):
  chip = chip_of(name)
  for path in program_files(dumps / name)[1]:
    kernel = simulate_routine(path, chip)
    cycles, bundles, issue, hbm_bytes, vector = PROGRAMS[name][2][kernel.name]
    assert kernel.microseconds * chip.mhz == pytest.approx(cycles, abs=0.5)
    assert kernel.bundles == bundles
    assert kernel.issue_us * chip.mhz == pytest.approx(issue)
    assert kernel.hbm_bytes == hbm_bytes
    slots = kernel.slots["VALU"] * issue * chip.vector_slots
    assert slots == pytest.approx(vector)
    # On v4 the second routine keeps its output on the chip.
    assert all("vmem->cmem" in note for note in kernel.unmodelled)


def test_a_program_calls_routines_in_its_loop(dumps):
  program = simulate_program(dumps / "loop_v5e", CHIPS["v5e"])
  calls = {kernel.name: kernel.calls for kernel in program.routines}
  assert calls == {"convert.1": 1, "copy.11": 7, "fusion.8": 7}


def test_other_cores_are_reported_and_not_waited_for(dumps):
  (path,) = (dumps / "psum_v5e").glob("*final_bundles.txt")
  kernel = simulate_routine(path, chip_of("psum_v5e"))
  assert kernel.microseconds * 1500 == pytest.approx(11910, abs=0.5)
  notes = "\n".join(kernel.unmodelled)
  for what in ("192x dma.general", "vsyncadd.remote", "never satisfied"):
    assert what in notes


def test_dump_of_another_chip_is_noticed(dumps):
  (path,) = (dumps / "small_v3").glob("*small.1-*final_bundles.txt")
  kernel = simulate_routine(path, CHIPS["v5e"])
  assert "are not this chip's" in "\n".join(kernel.unmodelled)


def test_newest_program_counts(dumps, tmp_path):
  shutil.copytree(dumps / "loop_v5e", tmp_path, dirs_exist_ok=True)
  shutil.copytree(dumps / "small_v5e", tmp_path, dirs_exist_ok=True)
  program = simulate_program(tmp_path, CHIPS["v5e"])
  assert {kernel.name for kernel in program.routines} == set(
    PROGRAMS["small_v5e"][2]
  )


def test_folder_without_a_program(tmp_path):
  with pytest.raises(FileNotFoundError, match="no compiled program"):
    simulate_program(tmp_path, CHIPS["v5e"])


ENDLESS = [
  "LB: > { %s1_s1 = frob.u32 0 } /* Start region 5 */",
  ": { %1 = sbr.rel target = $region5 }",
  ": { %2 = sbr.rel target = $region5 }",  # refused: it is in a delay slot
  *[": {}"] * 4,
]
TOP = [": { %1 = inlined_call /* %bad = fusion() */ }", ": {}"]


def test_a_routine_that_fails_takes_the_compilers_estimate(write, tmp_path):
  write(ENDLESS, "2-bad")
  write(TOP, "1-TLP")
  program = simulate_program(tmp_path, CHIPS["v5e"])
  (bad,) = program.routines
  assert bad.microseconds == pytest.approx(1 / 1500, abs=3 / 1500)
  assert any("FAILED" in note for note in bad.unmodelled)
  hlo = '%bad = f32[] fusion(), backend_config={"estimated_cycles":"777"}\n'
  program = simulate_program(tmp_path, CHIPS["v5e"], hlo)
  assert program.microseconds == pytest.approx((777 + 2) / 1500)
  assert any("estimated_cycles" in x for x in program.top_level.unmodelled)


def test_top_level_that_is_not_understood(tmp_path, write):
  write([": { %1 = sbr.rel target = $region5 }"], "1-TLP")
  with pytest.raises(ValueError, match="TLP.*region 5"):
    simulate_program(tmp_path, CHIPS["v5e"])
