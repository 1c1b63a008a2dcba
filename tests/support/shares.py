"""Pytest option `--share K/N`: run one of N shares of the selected tests.

CI runs one share of the slow tests a day, see `make test-share`. The tests of a
file take turns, so that the shares take about the same time. A test keeps its
share unless tests before it in its file change.
"""

import argparse
import collections
import zlib
from collections.abc import Sequence

import pytest


def shares_of(files: Sequence[str], shares: int) -> list[int]:
  """Assign each test to a share from 1 to `shares`.

  Args:
    files: File of each test, in the order of collection.
    shares: Number of shares.
  """
  seen: collections.Counter[str] = collections.Counter()
  assigned = []
  for file in files:
    assigned.append(1 + (zlib.crc32(file.encode()) + seen[file]) % shares)
    seen[file] += 1
  return assigned


def parse_share(text: str) -> tuple[int, int]:
  """Parse K/N with 1 <= K <= N."""
  share, _, shares = text.partition("/")
  if (
    share.isdecimal() and shares.isdecimal() and 1 <= int(share) <= int(shares)
  ):
    return int(share), int(shares)
  raise argparse.ArgumentTypeError(
    f"expected K/N with 1 <= K <= N, such as 3/10, got {text!r}"
  )


def pytest_addoption(parser):
  parser.addoption(
    "--share",
    metavar="K/N",
    type=parse_share,
    help="run share K of N of the selected tests",
  )


@pytest.hookimpl(trylast=True)  # after -m and -k have selected tests
def pytest_collection_modifyitems(config, items):
  if config.option.share is None:
    return
  share, shares = config.option.share
  files = [item.nodeid.partition("::")[0] for item in items]
  pairs = list(zip(items, shares_of(files, shares), strict=True))
  items[:] = [item for item, own in pairs if own == share]
  config.hook.pytest_deselected(
    items=[item for item, own in pairs if own != share]
  )
