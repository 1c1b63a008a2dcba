"""DMAs, waits and the channel, on hand-written programs with 1 us of latency.

On v5e a granule is 32 bytes, and the channel moves 546 bytes a cycle.
"""

import pytest

ENDS = [
  "{ %s1_s1 = inlined_call_operand.hbm [shape: f32[8], index: 0] }",
  "{ %s2_s2 = scalar_lea.vmem [#allocation9], 0  ;;  "
  "%p1_p1 = scmp.eq.s32.totalorder 1, 2 }",
]
WAIT = "{ %7 = dma.done.wait [#allocation2], 8192 /* w */ }"
TAKE = "{ %8 = vsyncadd [#allocation2], 4294959104 }"  # minus 8192
TRANSFER = 8192 * 32 / 546
LATENCY = 1500


def dma(route="hbm_to_vmem", guard="", size="8192"):
  return (
    f"{{ %5 = dma.{route} [thread:$0]  {guard}/*a=*/%s1_s1, "
    f"/*size_in_granules=*/{size}, /*b=*/%s2_s2, "
    "/*dst_syncflagno=*/[#allocation2] }"
  )


def test_wait_lasts_as_long_as_the_transfer(run):
  record = run([*ENDS, dma(), WAIT, TAKE])
  assert record.traffic.hbm_bytes == 8192 * 32
  # The wait itself is one cycle, in which the DMA runs.
  assert record.traffic.stall_cycles == pytest.approx(TRANSFER + LATENCY - 1)
  assert record.cycles == pytest.approx(5 + TRANSFER + LATENCY - 1)


def test_channel_is_shared_and_latencies_overlap(run):
  program = [*ENDS, dma(), dma("vmem_to_hbm"), WAIT, TAKE, WAIT]
  record = run(program)
  assert record.traffic.dmas == 2
  assert record.traffic.bytes == {
    "hbm->vmem": 8192 * 32,
    "vmem->hbm": 8192 * 32,
  }
  # The first DMA starts at the end of its bundle, the third, and the second one
  # a cycle later. From then on each has half the bandwidth, so that the first
  # arrives after 2 + 2 * TRANSFER + LATENCY cycles. Two bundles follow.
  assert record.cycles == pytest.approx(4 + 2 * TRANSFER + LATENCY)


def test_one_dma_leaves_bandwidth_to_another(run):
  # At half the bandwidth a DMA takes twice as long, and a second one as long.
  program = [*ENDS, dma(), dma("vmem_to_hbm"), WAIT, TAKE, WAIT]
  assert run([*ENDS, dma(), WAIT], dma_share=0.5).cycles == pytest.approx(
    3 + 2 * TRANSFER + LATENCY
  )
  assert run(program, dma_share=0.5).cycles == pytest.approx(
    5 + 2 * TRANSFER + LATENCY
  )


def test_a_short_dma_overtakes_a_long_one(run):
  other = dma("vmem_to_hbm", size="32").replace(
    "[#allocation2]", "[#allocation4]"
  )
  wait = "{ %7 = dma.done.wait [#allocation4], 32 /* w */ }"
  record = run([*ENDS, dma(), other, wait])
  assert record.cycles == pytest.approx(4 + 2 * TRANSFER / 256 + LATENCY)


def test_copy_in_hbm_crosses_the_channel_twice(run):
  record = run([*ENDS, dma("hbm_to_hbm"), WAIT])
  assert record.traffic.hbm_bytes == 2 * 8192 * 32
  assert record.cycles == pytest.approx(3 + 2 * TRANSFER + LATENCY)


def test_transfer_on_the_chip_takes_the_latency(run):
  record = run([*ENDS, dma("vmem_to_vmem"), WAIT])
  assert record.traffic.hbm_bytes == 0
  assert record.cycles == pytest.approx(3 + LATENCY)
  assert any("only its latency" in note for note in record.traffic.notes)


def test_dma_whose_guard_fails_does_not_start(run):
  record = run([*ENDS, dma(guard="(%p1_p1), "), WAIT])
  assert (record.traffic.dmas, record.traffic.stall_cycles) == (0, 0)
  assert any("never satisfied" in note for note in record.traffic.notes)


def test_size_that_is_data_is_taken_from_the_wait(run):
  record = run(["{ %s3_s3 = spop %9 }", *ENDS, dma(size="%s3_s3"), WAIT])
  assert record.traffic.hbm_bytes == 8192 * 32
  # It starts with its wait, the fifth bundle.
  assert record.cycles == pytest.approx(5 + TRANSFER + LATENCY)
  assert any("unknown size" in note for note in record.traffic.notes)


def test_descriptor_in_scalar_memory(run):
  # v3: target and source with their memory's bit, granules, flag; a granule
  # is 1,024 bytes and the channel moves 450 / 0.94 bytes a cycle.
  base = "{ %s3_s3 = scalar_lea.smem [#allocation3], 0 }"
  words = {1: "1024", 4: "512", 6: "64", 7: "[#allocation2]"}
  stores = [
    f"{{ %{i} = sst [smem:[#allocation3 + ${i:#x}]] {word} }}"
    for i, word in words.items()
  ]
  start = "{ %20 = dma [thread:$0] %s3_s3 }"
  wait = "{ %21 = dma.done.wait [#allocation2], 64 }"
  record = run([base, *stores, start, wait], "v3")
  assert record.traffic.bytes == {"hbm->vmem": 64 * 1024}
  assert record.cycles == pytest.approx(6 + 64 * 1024 / (450 / 0.94) + 940)
