import random

import pytest

from podscale.bench.estimated.static.interlocks import (
  Utilisation,
  align,
  interlocks,
  read_utilisation,
)

UNITS = ["VALU", "SALU"]
CAPACITIES = (4, 2)


def table(rows):
  return Utilisation(UNITS, CAPACITIES, [list(row) for row in rows])


def test_empty_rows_are_charged_to_the_next_bundle():
  scheduled = table([(1, 0), (0, 0), (0, 0), (2, 1), (0, 1)])
  final = table([(1, 0), (2, 1), (0, 1)])
  found = interlocks([0, 0, 0], scheduled, final)
  assert found.extra == [0, 2, 0]
  assert found.aligned


def test_delays_that_account_for_every_cycle_stand():
  scheduled = table([(1, 0), (0, 0), (0, 0), (2, 1)])
  found = interlocks([0, 2], scheduled, table([(1, 0), (2, 1)]))
  assert found.extra == [0, 2]


def test_merged_and_swapped_neighbours():
  before = [[1, 0], [0, 1], [3, 0]]
  assert align(before, [[0, 1], [4, 0]]) == [(0, 1), (1, 3)]


def test_tables_of_another_program_do_not_align():
  scheduled = table([(1, 0), (0, 0), (2, 0)])
  found = interlocks([0, 0], scheduled, table([(1, 1), (3, 1)]))
  assert (found.aligned, found.extra) == (False, [0, 0])


def test_every_row_belongs_to_one_bundle():
  draw = random.Random(0)
  rows = [[draw.randrange(3), draw.randrange(2)] for _ in range(300)]
  rows[-1] = [1, 1]
  kept = [row for row in rows if any(row)]
  groups = align(rows, kept)
  assert [start for start, _ in groups] == [0] + [e for _, e in groups[:-1]]
  assert groups[-1][1] == len(rows)
  for (start, end), row in zip(groups, kept, strict=True):
    assert [sum(column) for column in zip(*rows[start:end], strict=True)] == row


def test_without_tables_the_delays_are_all_there_is():
  assert interlocks([0, 3], None, None).extra == [0, 3]
  assert not interlocks([0, 3], None, None).aligned


def test_text_without_a_head_is_refused():
  with pytest.raises(ValueError, match="names of its columns"):
    read_utilisation("0 0 0\n")


def test_the_columns_of_occupancy_are_left_out():
  head = "== CAPACITY:\n{}VALU, SALU\n  {}4 2\n== UTILIZATION:\n{}1 2\n"
  old = head.format("MATMUL, MATPUSH, XLU, ", "4 4 3 ", "9 9 9 ")
  new = head.format("MXU, XLU, ", "4 3 ", "9 9 ")
  want = Utilisation(UNITS, CAPACITIES, [[1, 2]])
  assert read_utilisation(old) == read_utilisation(new) == want
