"""Shards that occur twice."""

import shutil

import pytest

from podscale.train.data.images import open_images
from podscale.train.data.images.discovery.duplicates import refuse_duplicates
from podscale.train.data.images.paths import as_path
from podscale.train.data.tools.synthesize import synthesize
from podscale.train.errors import UsageError


@pytest.mark.parametrize("layout", ["tfrecord", "array-record", "tar"])
@pytest.mark.parametrize("split, name", [("train", "train"), ("test", "valid")])
def test_a_shard_that_is_there_twice_is_refused(tmp_path, layout, split, name):
  synthesize(
    tmp_path / "new",
    layout,
    examples={"train": 6, "test": 6},
    classes=3,
    shards=3,
    width=8,
    height=8,
  )
  assert len(open_images(tmp_path / "new", split, 3)) == 6
  one, _, other = sorted((tmp_path / "new").glob(f"{name}*"))
  shutil.copy(one, other)
  with pytest.raises(UsageError) as error:
    open_images(tmp_path / "new", split, 3)
  assert f"{other}: has the same bytes as {one}" in str(error.value)


@pytest.mark.parametrize("place", [0, 2**16 + 1, 2**17 - 1])
@pytest.mark.parametrize("remote", [False, True])
def test_one_byte_makes_another_shard(tmp_path, place, remote):
  folder = as_path("memory://copies") if remote else tmp_path
  data = bytearray(2**17)
  (folder / "a").write_bytes(bytes(data))
  data[place] = 1
  (folder / "b").write_bytes(bytes(data))
  shards = [folder / "a", folder / "b"]
  refuse_duplicates(shards)
  (folder / "b").write_bytes(bytes(2**17))
  with pytest.raises(UsageError, match="would count twice"):
    refuse_duplicates(shards)
