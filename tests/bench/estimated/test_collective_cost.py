import pytest

from podscale.bench.estimated.collective_cost import (
  HOP_US,
  LINK_GB_PER_S,
  Slice,
  all_reduce_us,
  exchange_us,
  ring_us,
  scatter_us,
)

POD = Slice("v3", (16, 32, 1), 2)


def test_sizes_of_a_slice():
  assert POD.devices == 1024
  assert POD.hops == 15 + 31
  assert POD.transfer_us(83e3) == 1


def test_one_device_costs_nothing():
  one = Slice("v5e", (1, 1, 1), 1)
  for cost in (exchange_us, ring_us, all_reduce_us, scatter_us):
    assert cost(1e6, one) == 0


def test_small_messages_cost_latency():
  tile = Slice("v3", (2, 2, 1), 2)
  # Two hops to the far corner, of the barrier's signal and of the message.
  assert exchange_us(0, tile) == 4 * HOP_US
  assert ring_us(0, tile) == 8 * HOP_US
  # 64 devices in x, 32 in y, from both sides, there and back.
  assert all_reduce_us(0, POD) == 2 * (16 + 16) * HOP_US
  assert scatter_us(0, POD) == (31 + 31) * HOP_US


def test_the_busiest_link_of_an_exchange():
  # In the middle of 4 chips in a row, 2 x 2 messages one way; of 4 x 4 chips,
  # the 2 of half a row to the 8 beyond; 4 times as many of two cores.
  for sides, cores, messages in (
    ((4,), 1, 4),
    ((4, 4), 1, 16),
    ((4, 4), 2, 64),
    ((3,), 1, 2),
  ):
    tile = Slice("v5e", sides, cores)
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
    tile = Slice("v3", (*sides, 1), 2)
    for channels in (16, 512, 3072):
      assert exchange_us(8 * channels, tile) < ring_us(8 * channels, tile)


def test_every_chip_has_a_link():
  assert set(LINK_GB_PER_S) == {"v3", "v4", "v5e", "v5p", "v6e", "tpu7x"}
