"""Table rows of fusions and kernels."""

from podscale.bench.estimated.routine_rows import longest_first, routine_row
from podscale.bench.estimated.static import RoutineCost

ROUTINE = RoutineCost(
  name="fusion.1",
  calls=2,
  microseconds=20.0,
  bundles=9000,
  stall_us=12.0,
  issue_us=8.0,
  hbm_us=16.0,
  hbm_bytes=13_104_000,
  dmas=4,
  slots={"VALU": 0.5},
  spills=3,
  fills=4,
  unmodelled=[],
)


def test_a_routine_that_waits_for_its_bytes():
  row = routine_row(ROUTINE)
  assert (row["kernel"], row["calls"], row["bundles"]) == ("fusion.1", 2, 9000)
  assert (row["vector_slots"], row["spills"]) == (0.5, 3)
  assert (row["hbm_bytes"], row["stall_us"]) == (13_104_000, 12.0)
  assert (row["bound"], row["of_bound"]) == ("HBM", 0.8)


def test_a_routine_that_computes():
  row = routine_row(ROUTINE._replace(hbm_us=2.0, microseconds=8.0))
  assert (row["bound"], row["of_bound"]) == ("bundles", 1.0)


def test_a_routine_that_takes_no_time_has_no_bound_to_reach():
  row = routine_row(
    ROUTINE._replace(hbm_us=0.0, issue_us=0.0, microseconds=0.0)
  )
  assert row["of_bound"] == 0


def test_the_longest_comes_first():
  short = ROUTINE._replace(microseconds=1.0)
  assert longest_first([short, ROUTINE]) == [ROUTINE, short]
