"""Addresses for what a program names but does not place."""

import pytest

from podscale.bench.static.addresses import Addresses, is_private


@pytest.mark.parametrize(
  ("top_level", "most"), [(False, 2 * 4 * 511), (True, 2 * 28 * 511)]
)
def test_as_many_as_there_are_and_no_more(top_level, most):
  addresses = Addresses(top_level=top_level)
  found = sorted(addresses[f"#allocation{i}"] for i in range(most))
  # Half a thousand words of its own for each.
  assert all(b - a >= 512 for a, b in zip(found, found[1:], strict=False))
  assert found[-1] << 4 < 1 << 31
  assert not any(address & 0b111 << 10 for address in found)
  assert {is_private(address) for address in found} == {not top_level}
  with pytest.raises(ValueError, match=f"more than {most} allocations"):
    addresses["one more"]


def test_a_kernels_and_the_top_levels_do_not_meet():
  kernel, top = Addresses(top_level=False), Addresses(top_level=True)
  names = [f"#allocation{i}" for i in range(4000)]
  assert not {kernel[n] for n in names} & {top[n] for n in names}


def test_few_have_a_thousand_words_each():
  addresses = Addresses(top_level=True)
  assert all(addresses[str(i)] & 1023 == 0 for i in range(14_308))
