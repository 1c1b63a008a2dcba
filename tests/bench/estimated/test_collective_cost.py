"""Latency and bandwidth of collectives on a torus."""

import pytest

from podscale.bench.chips import CHIPS, LINK_EFFICIENCY
from podscale.bench.estimated.collective_cost import (
  HOP_US,
  Slice,
  all_reduce_us,
  exchange_us,
  ring_us,
  scatter_us,
)

POD = Slice(CHIPS["v3"], (16, 32, 1), 2)


def test_sizes_of_a_slice():
  assert POD.devices == 1024
  assert POD.hops == 15 + 31
  assert POD.transfer_us(83e3) == pytest.approx(1 / LINK_EFFICIENCY)


def test_one_device_costs_nothing():
  one = Slice(CHIPS["v5e"], (1, 1, 1), 1)
  for cost in (exchange_us, ring_us, all_reduce_us, scatter_us):
    assert cost(1e6, one) == 0


def test_small_messages_cost_latency():
  tile = Slice(CHIPS["v3"], (2, 2, 1), 2)
  # Two hops to the far corner, for the barrier's signal and for the message.
  assert exchange_us(0, tile) == 4 * HOP_US
  # A step with each of the 7 others, after a barrier.
  assert ring_us(0, tile) == pytest.approx(8 * CHIPS["v3"].step_us)
  # 32 devices in x and in y, from both sides, there and back.
  assert all_reduce_us(0, POD) == pytest.approx(2 * 32 * CHIPS["v3"].step_us)
  assert scatter_us(0, POD) == pytest.approx(62 * CHIPS["v3"].step_us)


def test_the_busiest_link_of_an_exchange():
  # In the middle of a row of 4 chips, 2 x 2 messages go one way. With 4 x 4
  # chips, the 2 of half a row send to the 8 beyond; two cores a chip send 4
  # times as many.
  for sides, cores, messages in (
    ((4,), 1, 4),
    ((4, 4), 1, 16),
    ((4, 4), 2, 64),
    ((3,), 1, 2),
  ):
    tile = Slice(CHIPS["v5e"], sides, cores)
    bytes_ = 1e6
    assert exchange_us(bytes_, tile) - exchange_us(0, tile) == pytest.approx(
      messages * tile.transfer_us(bytes_)
    )


def test_large_buffers_cost_bandwidth():
  bytes_ = 1e12
  # All four links: there and back, and nearly all of the buffer.
  per_link = POD.transfer_us(bytes_) / 4
  assert all_reduce_us(bytes_, POD) == pytest.approx(2 * per_link, rel=0.01)
  # One ring, one direction.
  assert scatter_us(bytes_, POD) == pytest.approx(
    POD.transfer_us(bytes_), rel=0.01
  )


def test_the_exchange_is_ahead_where_batch_norm_uses_it():
  # Moments of up to 3,072 channels, groups of up to 32 cores of v3.
  for sides in ((1, 2), (2, 2), (2, 4), (4, 4)):
    tile = Slice(CHIPS["v3"], (*sides, 1), 2)
    for channels in (16, 512, 3072):
      assert exchange_us(8 * channels, tile) < ring_us(8 * channels, tile)


# From cloud.google.com/tpu/docs: a pod's all-reduce bandwidth in 1e9 bytes a
# second (340 TB/s, 1.1 PB/s, 51.2 TB/s, 102.4 TB/s), its chips, and the ports
# of a chip.
PODS = {
  "v3": (340e3, 1024, 4),
  "v4": (1.1e6, 4096, 6),
  "v5e": (51.2e3, 256, 4),
  "v6e": (102.4e3, 256, 4),
}


@pytest.mark.parametrize("chip", PODS)
def test_a_link_has_its_share_of_the_pods_bandwidth(chip):
  bandwidth, chips, ports = PODS[chip]
  assert CHIPS[chip].link_gb_per_s == pytest.approx(
    bandwidth / chips / ports, rel=0.01
  )


@pytest.mark.parametrize("chip", ["v5p", "tpu7x"])
def test_a_link_has_its_share_of_the_chips_bandwidth(chip):
  # 1,200 GB/s a chip, both directions, over 6 ports.
  assert CHIPS[chip].link_gb_per_s == 1200 / 2 / 6
