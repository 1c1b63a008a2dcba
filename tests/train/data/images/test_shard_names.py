"""Names of shards: format, split, and complete series."""

import pytest

from podscale.train.data.images.shard_names import (
  series_problem,
  shard_format,
  split_aliases,
)


@pytest.mark.parametrize(
  "name, kind",
  [
    ("train-00000-of-01024", "tfrecord"),
    ("train_00000_of_01024", "tfrecord"),
    ("flowers_train_00000-of-00005.tfrecord", "tfrecord"),
    ("imagenet2012-train.tfrecord-00000-of-01024", "tfrecord"),
    ("train00-400.tfrecord", "tfrecord"),
    ("train00-2071.tfrec", "tfrecord"),
    ("train_1.tfrecords", "tfrecord"),
    ("train-00000-of-00005.gz", "tfrecord"),
    ("train.array_record-00000-of-00064", "array_record"),
    ("train-00000-of-00002.array_record", "array_record"),
    ("train-000000.tar", "tar"),
    ("train-000000.tar.gz", "tar"),
    ("000000.tar", "tar"),
    ("train-00000-of-00052-b1f3ca5d0e4c7b81.parquet", "parquet"),
    ("0000.parquet", "parquet"),
    # Not shards.
    ("train-00000-of-00002.idx", None),
    ("train-00000-of-00002.index", None),
    ("train-000000.tar.idx", None),
    ("train-00000-of-00002.tfrecord.crc", None),
    ("train-00000-of-00002.json", None),
    ("train-00000-of-00002.tmp", None),
    ("train-00000-of-00002.array_record.part", None),
    ("train-00000-of-00002.arrow", None),
    (".train-00000-of-00002", None),
    ("README.md", None),
  ],
)
def test_formats_by_name(name, kind):
  assert shard_format(name) == kind


@pytest.mark.parametrize(
  "name, train, test",
  [
    ("train-00000-of-00002", ["train"], []),
    ("TRAIN_0.tar", ["train"], []),
    ("flowers_train_00000-of-00005.tfrecord", ["train"], []),
    ("train00-400.tfrecord", ["train"], []),
    ("imagenet2012-validation.tfrecord-00000-of-00064", [], ["validation"]),
    ("ILSVRC2012_val.tar", [], ["val"]),
    ("valid-0.tar", [], ["valid"]),
    ("test-0.tar", [], ["test"]),
    ("imagenet_train_val-00000-of-00001", ["train"], ["val"]),
    ("trainval-00000-of-00001", [], []),
    ("contest-00000-of-00001", [], []),
  ],
)
def test_splits_by_name(name, train, test):
  assert split_aliases(name, "train") == train
  assert split_aliases(name, "test") == test


def names(pattern, numbers, **more):
  return [pattern.format(i, **more) for i in numbers]


PATTERNS = [
  "train-{:05d}-of-00003",
  "train_{:05d}_of_00003.tfrecord",
  "flowers_train_{:05d}-of-00003.tfrecord",
  "imagenet2012-train.tfrecord-{:05d}-of-00003",
  "train.array_record-{:05d}-of-00003",
  "train-{:05d}-of-00003-0a1b2c3d4e.parquet",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("first", [0, 1])
def test_a_whole_series_from_0_or_from_1(pattern, first):
  whole = names(pattern, range(first, first + 3))
  assert series_problem(whole) is None
  for gone in range(3):
    some = [name for i, name in enumerate(whole) if i != gone]
    number = gone + first
    if (first, gone) == (1, 2):
      number = 0  # numbers 1 and 2 of 3: as if 0 were gone
    assert series_problem(some) == (
      f"1 of 3 shards are missing beside {some[0]}: number {number}"
    )


@pytest.mark.parametrize("pattern", PATTERNS)
def test_numbers_from_0_and_the_total_do_not_go_together(pattern):
  all_four = names(pattern, range(4))
  assert series_problem(all_four) == (
    f"{all_four[3]} has a number beyond the total in its name"
  )


@pytest.mark.parametrize(
  "whole",
  [
    names("train-{:06d}.tar", range(12)),
    names("train_{}.tfrecord", range(12)),
    names("train_{}.tfrecord", range(1, 12)),
    ["train_1.tfrecord"],
    ["train-000000.tar"],
    names("train{:02d}-400.tfrecord", range(3)),
    ["train00-400.tfrecord"],
    # Behind the number Kaggle has the count of records.
    ["train00-2071.tfrec", "train01-2071.tfrec", "train02-2069.tfrec"],
    ["00-224x224-798.tfrec", "01-224x224-798.tfrec", "02-224x224-797.tfrec"],
    names("imagenet2012-train-{:04d}.tar", range(3)),
    ["train-0-0.tar", "train-0-1.tar", "train-1-0.tar", "train-1-1.tar"],
    ["train-a.tar", "train-b.tar"],
    ["ILSVRC2012_train.tfrecord"],
    ["000000.tar", "000001.tar"],
  ],
)
def test_a_whole_series_without_a_total(whole):
  assert series_problem(whole) is None


@pytest.mark.parametrize(
  "some, message",
  [
    (["train-000001.tar"], "1 of 2 shards are missing beside train-000001.tar"),
    (["train-000000.tar", "train-000002.tar"], "number 1"),
    (["train_1.tfrecord", "train_3.tfrecord"], "1 of 3 .*: number 2"),
    (["train00-400.tfrec", "train02-400.tfrec"], "1 of 3 .*: number 1"),
    (["000001.tar"], "number 0"),
    (names("train-{:06d}.tar", [9]), r"9 of 10 .*: number 0, 1, 2, 3, 4, \.\."),
  ],
)
def test_missing_shards_are_numbered(some, message):
  problem = series_problem(some)
  assert problem is not None
  import re

  assert re.search(message, problem)


@pytest.mark.parametrize(
  "both",
  [
    names("train-{:05d}-of-00002", range(2))
    + names("train-{:05d}-of-00004", range(4)),
    names("train-{:05d}-of-00002.array_record", range(2))
    + names("train.array_record-{:05d}-of-00003", range(3)),
    names("train-{:05d}-of-00002", range(2)) + ["train_extra.tfrecord"],
    names("train-{:06d}.tar", range(2)) + names("train_{}.tar", range(2)),
    ["a_train-00000-of-00002", "b_train-00001-of-00002"],
    ["train-00000-of-00002", "train.tfrecord-00001-of-00002"],
    ["v1/train_1_of_2.tar", "v2/train_2_of_2.tar"],
    ["train.tar", "train-0.tar"],
  ],
)
def test_two_series_are_refused_with_a_name_of_each(both):
  problem = series_problem(both)
  assert problem is not None and "belong to two series of shards" in problem
  assert sum(name in problem.split() for name in both) == 2


@pytest.mark.parametrize(
  "twice",
  [
    ["a_train-00000-of-00002", "b_train-00000-of-00002"],
    ["train-00001-of-00002", "train-00001-of-00002-1f.parquet"],
    ["train00-400.tfrec", "train00-398.tfrec", "train01-400.tfrec"],
  ],
)
def test_a_number_twice_is_refused_with_both_names(twice):
  problem = series_problem(sorted(twice))
  assert problem is not None and "occurs twice" in problem
  assert twice[0] in problem and twice[1] in problem
