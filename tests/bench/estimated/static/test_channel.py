"""HBM shared by running DMAs; it moves 100 bytes a cycle here."""

import random

import pytest

from podscale.bench.estimated.static.channel import Channel


@pytest.fixture
def channel():
  return Channel(bytes_per_cycle=100, share=0.8)


def test_one_dma_has_its_share(channel):
  assert channel.end(channel.start(5, 800)) == 15


def test_two_dmas_have_half_each(channel):
  first, second = channel.start(0, 500), channel.start(0, 1000)
  assert channel.end(first) == 10
  # 500 bytes are left, for a DMA by itself.
  assert channel.end(second) == 10 + 500 / 80


def test_a_short_dma_ends_before_an_earlier_long_one(channel):
  long = channel.start(0, 8000)
  short = channel.start(50, 100)  # 4000 bytes are left of the long one
  assert channel.end(short) == 52
  assert channel.end(long) == 52 + 3900 / 80


def test_the_order_of_questions_does_not_matter(channel):
  first, second = channel.start(0, 500), channel.start(0, 1000)
  assert channel.end(second) == 16.25
  assert channel.end(first) == 10


def test_dmas_end_while_nobody_asks(channel):
  first = channel.start(0, 80)
  second = channel.start(100, 80)
  assert channel.end(second) == 101
  assert channel.end(first) == 1


def test_all_end_together(channel):
  transfers = [channel.start(0, 1e6) for _ in range(3)]
  channel.end_all(7)
  assert [channel.end(transfer) for transfer in transfers] == [7, 7, 7]
  assert channel.end(channel.start(7, 80)) == 8


@pytest.mark.parametrize("seed", range(5))
def test_a_busy_channel_loses_no_bandwidth(channel, seed):
  generator = random.Random(seed)
  sizes = [generator.randrange(1, 1000) for _ in range(50)]
  # The channel has more to do than it can until the last one starts.
  transfers = [channel.start(0, 1000), channel.start(0, 1000)]
  starts = sorted(generator.uniform(0, 15) for _ in sizes)
  transfers += [
    channel.start(at, size) for at, size in zip(starts, sizes, strict=True)
  ]
  ends = sorted(map(channel.end, transfers))
  lower = (2000 + sum(sizes)) / 100
  # Only the last DMA runs by itself.
  upper = lower + (ends[-1] - ends[-2]) * 0.2
  assert lower < ends[-1] <= upper * (1 + 1e-9)
