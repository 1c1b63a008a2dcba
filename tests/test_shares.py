"""Daily shares of the slow tests."""

import argparse
import collections

import pytest
from support.shares import parse_share, shares_of

pytest_plugins = ["pytester"]

FILE = """
import pytest
@pytest.mark.parametrize("i", range(7))
def test_slow(i): pass
@pytest.mark.parametrize("i", range(3))
def test_fast(i): pass
"""


def test_the_option_partitions_the_selected_tests(pytester):
  pytester.makeconftest("from support.shares import *")
  pytester.makepyfile(test_a=FILE, test_b=FILE)

  def collect(*arguments):
    run = pytester.runpytest_inprocess(
      *("--collect-only", "-q", "-k", "slow", "-p", "no:xdist"), *arguments
    )
    return [line for line in run.outlines if "::" in line]

  everything = collect()
  assert len(everything) == 14
  shares = [collect("--share", f"{i}/3") for i in (1, 2, 3)]
  assert all(4 <= len(ids) <= 6 for ids in shares)
  assert sorted(sum(shares, [])) == sorted(everything)


def test_the_share_is_checked():
  assert parse_share("10/10") == (10, 10)
  for text in ("0/3", "4/3", "3", "a/b", "-1/3", ""):
    with pytest.raises(argparse.ArgumentTypeError, match=f"got '{text}'"):
      parse_share(text)


def test_each_test_has_one_of_ten_shares(request):
  # The tests of this session: all of them in `make test`.
  ids = [item.nodeid for item in request.session.items]
  files = [i.partition("::")[0] for i in ids]
  assigned = shares_of(files, 10)
  assert len(assigned) == len(ids)
  assert set(assigned) <= set(range(1, 11))
  # A share of a file has at most one test more than another.
  sizes = collections.Counter(zip(files, assigned, strict=True))
  for file in set(files):
    own = [sizes[file, share] for share in range(1, 11)]
    assert max(own) - min(own) <= 1, file


def test_a_new_file_moves_no_other_test():
  before = shares_of(["a", "a", "b", "b", "b"], 10)
  assert shares_of(["a", "a", "new", "b", "b", "b"], 10)[3:] == before[2:]
  # Nor does the order in which files are collected.
  assert shares_of(["b", "b", "b", "a", "a"], 10) == before[2:] + before[:2]


def test_the_shares_of_other_files_begin_elsewhere():
  # Else the first share would have the first test of every file.
  first = [shares_of([f"tests/test_{i}.py"], 10)[0] for i in range(100)]
  assert max(collections.Counter(first).values()) <= 20
