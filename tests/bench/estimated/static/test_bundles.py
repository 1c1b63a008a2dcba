import pytest

from podscale.bench.estimated.static.bundles import read_bundles


def read(*bundles):
  lines = (f"{hex(i) if i else 0} : {b}" for i, b in enumerate(bundles))
  return read_bundles("\n".join(lines), top_level=False)


def only(bundle):
  (operation,) = read(bundle).operations[0]
  return operation


def test_vector_operations_are_left_out():
  bundles = read(
    "{ %v3_v0 = vld [vmem:[%s2_s1] sm:$0xff]  ;;  %9 = vst [vmem:[%s2_s1]] "
    "/*vst_source=*/%v3_v0  ;;  %vm1_vm0 = vcmp.eq.s32.totalorder 1, 2  ;;  "
    "%10 = vnop }",
    "{}",
  )
  assert (bundles.length, bundles.operations) == (2, {})


def test_guard_and_what_is_kept_where_it_fails():
  o = only("{ %s3_s0 = sadd.s32 (!%p1_p2, %s9_s0), 4294967295, %s2_s0 }")
  assert (o.name, o.kind, o.result) == ("sadd.s32", "alu", "%s3_s0")
  assert o.operands == [4294967295, "%s2_s0"]
  assert (o.guard, o.negated, o.otherwise) == ("%p1_p2", True, "%s9_s0")
  assert o.reads() == ["%s2_s0", "%p1_p2", "%s9_s0"]


def test_labels_and_notes_of_a_dma():
  o = only(
    "{ %5 = dma.hbm_to_vmem [thread:$0]  (%p1_p1), /*hbm=*/%s1_s1, "
    "/*size_in_granules=*/8192, /*dst_syncflagno=*/[#allocation4 + $0x1] "
    "/* window } 3,\nof two */ }"
  )
  assert o.kind == "dma"
  assert o.note == "window } 3,\nof two"
  assert set(o.labels) == {"hbm", "size_in_granules", "dst_syncflagno"}
  assert o.labels["hbm"] == "%s1_s1"
  assert o.labels["size_in_granules"] == 8192


def test_store_without_a_comma():
  o = only("{ %2 = sst [smem:[%s4_s2 + $0x3]] %s0_s3 }")
  assert o.operands == [["%s4_s2", 3], "%s0_s3"]


def test_may_alias_mark_is_no_operand():
  o = only("{ %s1_s1 = smov.u32 %s5_s5 [#allocation3] }")
  assert o.operands == ["%s5_s5"]


def test_float_operand_is_nothing_known():
  assert only("{ %s1_s1 = smov.u32 1.5 }").operands == [None]


def test_order_in_a_bundle():
  bundles = read(
    "{ %1 = sst [smem:[4]] %s3_s3  ;;  %s3_s3 = int_to_ptr.hbm %s2_s2  ;;  "
    "%s2_s2 = sshll.u32 %s1_s1, 4  ;;  %s1_s1 = sphi %s8_s1, %s9_s1 }"
  )
  kinds = [o.name for o in bundles.operations[0]]
  assert kinds == ["sphi", "sshll.u32", "int_to_ptr.hbm", "sst"]
  assert bundles.spaces == {"%s3_s3": "hbm"}


def test_regions_and_name():
  bundles = read(
    "{} /* entry bundle: %fusion.7 = f32[] fusion() */",
    "{} /* Start region 3 :: Start/End empty region 4 */",
  )
  assert bundles.hlo_name == "fusion.7"
  assert bundles.regions == {3: 1, 4: 1}


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("nothing here", "no bundles"),
    ("0 : { %1 = sbr.rel target = $region5 }", "region 5"),
  ],
)
def test_text_that_makes_no_sense(text, message):
  with pytest.raises(ValueError, match=message):
    read_bundles(text, top_level=False)
