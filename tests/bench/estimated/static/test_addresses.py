"""Addresses for what a program names but does not place."""

import pytest

from podscale.bench.estimated.static.addresses import (
  Addresses,
  is_private,
  page,
)


@pytest.mark.parametrize(
  ("top_level", "most"), [(False, 4 * 4 * 511), (True, 4 * 28 * 511)]
)
def test_as_many_as_there_are_and_no_more(top_level, most):
  addresses = Addresses(top_level=top_level)
  found = sorted(addresses[f"#allocation{i}"] for i in range(most))
  # A quarter of a thousand words of its own for each.
  assert all(b - a >= 256 for a, b in zip(found, found[1:], strict=False))
  assert found[-1] << 4 < 1 << 31
  assert not any(address & 0b111 << 10 for address in found)
  assert {is_private(address) for address in found} == {not top_level}
  with pytest.raises(ValueError, match=f"more than {most} allocations"):
    addresses["one more"]


def test_addresses_do_not_overlap():
  names = [f"#allocation{i}" for i in range(2000)]
  names += [f"#allocation{i}_spill" for i in range(3000)]
  kernel, top = Addresses(top_level=False), Addresses(top_level=True)
  kernels = {kernel[name] for name in names}
  tops = {top[name] for name in names}
  assert len(kernels) == len(tops) == len(names)
  assert not kernels & tops
  assert all(map(is_private, kernels))
  assert not any(map(is_private, tops))
  assert all(0 < address << 4 < 1 << 31 for address in kernels | tops)
  # Bits 10 to 12 of a flag are others' on v2 and v3.
  rows = {kernel[name] for name in names[:2000]}
  assert not any(address & 0x1C00 for address in rows)
  assert kernel.pages() == {page(address) for address in kernels}


def test_few_have_a_thousand_words_each():
  addresses = Addresses(top_level=True)
  assert all(addresses[str(i)] & 1023 == 0 for i in range(14_308))
