"""Hand-written programs, counted bundle by bundle."""

import pytest

LOOP = [
  "{ %s10_s1 = smov.u32 0 }",
  "LB: > { %s12_s1 = sadd.s32 1, %s11_s1  ;;  "
  "%s11_s1 = sphi %s10_s1, %s12_s1 } /* Start region 5 */",
  "   : > { %p1_p0 = scmp.ge.s32.totalorder %s12_s1, 10 }",
  "   : > { %1 = sbr.rel (!%p1_p0) target = $region5 }",
  *["{}"] * 5,
]
# Registers that the bundles below set from data.
DATA = "{ %s90_s9 = spop %91 }"


def skips(*setup):
  """Write a program that skips three bundles if %p1_p1 is true, on v3."""
  return [
    *setup,
    "{ %1 = sbr.rel (%p1_p1) target = $region9 }",
    *["{}"] * 4,
    "{} /* Start region 9 */",
  ]


def holds(run, *setup):
  """Return the value of %p1_p1 after these bundles; None if it is unknown."""
  record = run(skips(*setup), "v3")
  assert not record.routine.error, record.routine.error
  if any("data-dependent branch" in note for note in record.traffic.notes):
    return None
  left_out = len(setup) + 6 - sum(record.executed())
  assert left_out in (0, 3)
  return left_out == 3


@pytest.mark.parametrize(
  ("chip", "turn", "rest"),
  [("v5e", 3 + 4, 1), ("v6e", 3 + 4, 1), ("v3", 3 + 1, 4), ("v2", 3 + 1, 4)],
)
def test_delay_slots_run_with_every_turn(run, chip, turn, rest):
  assert sum(run(LOOP, chip).executed()) == 1 + 10 * turn + rest


def test_delay_in_cycles_needs_the_tables(run):
  assert "utilisation tables" in run(LOOP, "tpu7x").routine.error


def test_time_is_bundles_and_their_delays(run):
  record = run(["{ %1 = vdelay 41 }", "{}"], "v3")
  assert record.cycles == record.issue_cycles() == 2 + 41


@pytest.mark.parametrize(
  ("operation", "value"),
  [
    ("sadd.s32 4294967295, 3", 2),
    ("ssub.s32 2, 3", 4294967295),
    ("smul.u32 65536, 65537", 65536),
    ("smulhi.u32 65536, 65537", 1),
    ("sshll.u32 3, 31", 1 << 31),
    ("sshll.u32 3, 32", 0),
    ("sshrl.u32 4294967295, 31", 1),
    ("sshra.s32 4294967288, 1", 4294967292),
    ("sand.u32 12, 10", 8),
    ("sor.u32 12, 10", 14),
    ("sxor.u32 12, 10", 6),
    ("smin.u32 4294967295, 3", 3),
    ("smax.u32 4294967295, 3", 4294967295),
    ("smin.s32 4294967295, 3", 4294967295),
    ("smax.s32 4294967295, 3", 3),
    ("scalar_lea.hbm 5, 6", 11),
    ("smov.u32 $0x10", 16),
    ("smov $0x10", 16),
  ],
)
def test_arithmetic(run, operation, value):
  # Through registers too: shifts by a number are translated in another way.
  name, first, *rest = operation.split()
  values = ["{ %s2_s2 = smov.u32 " + first.strip(",") + " }"]
  direct = name + " %s2_s2, " + (rest[0] if rest else "")
  if rest:
    values.append("{ %s3_s3 = smov.u32 " + rest[0] + " }")
  registers = name + " %s2_s2" + (", %s3_s3" if rest else "")
  for written in (operation, direct.strip(", "), registers):
    compare = f"{{ %p1_p1 = scmp.eq.s32.totalorder %s1_s1, {value} }}"
    assert holds(run, *values, f"{{ %s1_s1 = {written} }}", compare), written


@pytest.mark.parametrize(
  ("comparison", "result"),
  [
    ("lt.s32.totalorder 4294967295, 0", True),
    ("lt.u32.totalorder 4294967295, 0", False),
    ("ge.s32.totalorder 0, 2147483648", True),
    ("ne.s32.totalorder 3, 4", True),
    ("le.s32.totalorder 4, 4", True),
    ("gt.u32.totalorder 4, 4", False),
    ("lt.s32.totalorder %s90_s9, 0", None),
  ],
)
def test_comparison(run, comparison, result):
  assert holds(run, DATA, f"{{ %p1_p1 = scmp.{comparison} }}") is result


@pytest.mark.parametrize(
  ("operation", "result"),
  [
    ("por %p2_p2, %p3_p3", True),
    ("por %p3_p3, %p4_p4", None),
    ("por %p4_p4, %p2_p2", True),
    ("pnand %p2_p2, %p2_p2", False),
    ("pnand %p3_p3, %p4_p4", True),
    ("pnand %p2_p2, %p4_p4", None),
    ("pneg %p3_p3", True),
    ("pneg %p4_p4", None),
    ("pmov 1", True),
  ],
)
def test_logic_with_unknown_operands(run, operation, result):
  setup = (
    DATA,
    "{ %p2_p2 = scmp.eq.s32.totalorder 1, 1  ;;  "
    "%p3_p3 = scmp.eq.s32.totalorder 1, 2  ;;  "
    "%p4_p4 = scmp.eq.s32.totalorder %s90_s9, 2 }",
    f"{{ %p1_p1 = {operation} }}",
  )
  assert holds(run, *setup) is result


@pytest.mark.parametrize(
  ("guard", "value"),
  [("(%p2_p2)", 7), ("(!%p2_p2)", 5), ("(!%p2_p2, %s4_s4)", 9)],
)
def test_guard_keeps_what_was_there(run, guard, value):
  setup = (
    "{ %s3_s3 = smov.u32 5  ;;  %s4_s4 = smov.u32 9  ;;  "
    "%p2_p2 = scmp.eq.s32.totalorder 1, 1 }",
    f"{{ %s3_s3 = smov.u32 {guard}, 7 }}",
    f"{{ %p1_p1 = scmp.eq.s32.totalorder %s3_s3, {value} }}",
  )
  assert holds(run, *setup)


def test_counter_that_is_spilled(run):
  spilled = "[smem:[#allocation1_spill]]"
  record = run(
    [
      f"{{ %1 = sst {spilled} /*sst_source=*/%s1_s0 }}",
      "{ %s0_s3 = smov.u32 3 }",
      f"{{ %2 = sst {spilled} /*sst_source=*/%s0_s3 }}",
      f"LB: > {{ %s2_s0 = sld {spilled} }} /* Start region 7 */",
      "   : > { %s3_s0 = sadd.s32 4294967295, %s2_s0 }",
      "   : > { %p1_p1 = scmp.lt.s32.totalorder %s3_s0, 0 }",
      "   : > { %s4_s0 = smov.u32 (%p1_p1, %s3_s0), 100 }",
      f"   : > {{ %3 = sst {spilled} %s4_s0 }}",
      "   : > { %p2_p2 = scmp.ne.s32.totalorder %s4_s0, 100 }",
      "   : > { %4 = sbr.rel (%p2_p2) target = $region7 }",
      *["{}"] * 4,
    ]
  )
  assert record.executed()[3] == 4  # 2, 1, 0, then -1, which becomes 100


def test_quotient_and_remainder_are_taken_in_turn(run):
  setup = (
    "{ %1 = sdivrem.u32 23, 7 /* kDivAndRem */ }",
    "{ %s2_s2 = spop.drf %1 }",
    "{ %s3_s3 = spop.drf %1 }",
    "{ %s4_s4 = sshll.u32 %s2_s2, 4 }",
    "{ %s5_s5 = sor.u32 %s4_s4, %s3_s3 }",
    "{ %p1_p1 = scmp.eq.s32.totalorder %s5_s5, 50 }",  # 3 * 16 + 2
  )
  assert holds(run, *setup)


@pytest.mark.parametrize(("kind", "result"), [("kDiv", 3), ("kRem", 2)])
def test_quotient_or_remainder_alone(run, kind, result):
  setup = (
    f"{{ %1 = sdivrem.u32 23, 7 /* {kind} */ }}",
    "{ %s2_s2 = spop.drf %1 }",
    f"{{ %p1_p1 = scmp.eq.s32.totalorder %s2_s2, {result} }}",
  )
  assert holds(run, *setup)


def test_branch_to_the_end(run):
  record = run(
    ["{ %1 = sbr.rel target = $region3 }", *["{}"] * 9, "CT: {}"], "v3"
  )
  assert record.executed() == [1, 1, *[0] * 8, 1]


def test_branch_in_a_taken_delay_slot_is_refused(run):
  record = run(
    [
      "{ %1 = sbr.rel target = $region3 }",
      "{ %2 = sbr.rel target = $region3 }",
      *["{}"] * 9,
      "{} /* Start region 3 */",
    ]
  )
  assert record.routine.error == "branch in a delay slot, bundle 0x1"


def test_branch_not_taken_may_hold_another_in_its_slots(run):
  record = run(
    [
      "{ %p1_p1 = scmp.eq.s32.totalorder 1, 2 }",
      "{ %1 = sbr.rel (%p1_p1) target = $region3 }",
      "{ %2 = sbr.rel (!%p1_p1) target = $region3 }",
      *["{}"] * 9,
      "{} /* Start region 3 */",
    ]
  )
  assert record.executed() == [1] * 7 + [0] * 5 + [1]


def test_nothing_is_dropped_silently(run):
  record = run(
    [
      "{ %s1_s1 = sfancy.s32 1, 2  ;;  %%% }",
      DATA,
      "{ %p1_p1 = scmp.eq.s32.totalorder %s90_s9, 1 }",
      "{ %4 = sbr.rel (%p1_p1) target = $region3 }",
      *["{}"] * 4,
      "{ %5 = vsyncadd.remote %s90_s9, 1 }",
      "{ %6 = sst [smem:[%s90_s9]] 4 }",
      "{ %7 = shalt.err (%p1_p1) }  ",
      "{} /* Start region 3 */",
      "{ %8 = dma.vmem_to_hbm /*vmem=*/1, /*size_in_granules=*/4, /*hbm=*/2, "
      "/*dst_syncflagno=*/%s90_s9 }",
    ]
  )
  notes = "\n".join(record.traffic.notes)
  for what in (
    "unknown scalar operation sfancy.s32",
    "not understood: %%%",
    "data-dependent branch",
    "vsyncadd.remote",
    "store to unknown scalar memory",
    "dma.vmem_to_hbm vmem->hbm not modelled",
  ):
    assert what in notes
