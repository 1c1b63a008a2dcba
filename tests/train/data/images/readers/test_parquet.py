"""Parquet shards as Hugging Face writes them, whole and damaged."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from podscale.train.data.images import open_images
from podscale.train.data.images.labels import check_labels
from podscale.train.data.images.readers import parquet as module
from podscale.train.data.images.readers.parquet import ParquetImages
from podscale.train.data.source import BadExampleError
from podscale.train.errors import UsageError

NAMES = ["apple", "leaf", "sky"]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def file(index):
  return bytes([index]) * (100 + index)


def table(labels, names=NAMES, image_type=IMAGE, first=0):
  """Make rows in the form of `datasets`, with its schema in the metadata."""
  files = [file(i) for i in range(first, first + len(labels))]
  if image_type == IMAGE:
    files = [{"bytes": f, "path": "x.jpg"} for f in files]
  # The label comes first, so that the columns' order is not relied on.
  columns = {
    "label": pa.array(labels, pa.int64()),
    "image": pa.array(files, image_type),
    "other": ["x"] * len(labels),
  }
  made = pa.table(columns)
  if names is None:
    return made
  label = {"names": names, "_type": "ClassLabel"}
  features = {"image": {"_type": "Image"}, "label": label}
  info = json.dumps({"info": {"features": features}})
  return made.replace_schema_metadata({"huggingface": info})


def write(path, *args, rows=3, **kwargs):
  """Write row groups of three rows, with checksums, uncompressed."""
  made = table(*args, **kwargs)
  with path.open("wb") as stream:
    pq.write_table(
      made, stream, rows, write_page_checksum=True, compression="none"
    )
  return path


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path):
  if request.param == "local":
    return tmp_path
  return UPath("memory://parquet")


def refusal(call, *args):
  with pytest.raises(UsageError) as error:
    call(*args)
  assert "\n" not in str(error.value)
  return str(error.value)


@pytest.mark.parametrize("image_type", [IMAGE, pa.binary(), pa.large_binary()])
def test_rows_labels_and_names(folder, image_type):
  shards = [
    write(folder / "0", [0, 1, 2, 0, 1, 2, 0], image_type=image_type),
    write(folder / "1", [2, 1], image_type=image_type, first=7),
  ]
  source = ParquetImages(shards, 1000)
  assert (len(source), source.num_classes) == (9, 3)
  assert source.class_names == tuple(NAMES)
  want = [0, 1, 2, 0, 1, 2, 0, 2, 1]
  for i in (8, 0, 3, 7, 2, 6, 1, 5, 4):
    assert source[i] == {"image": file(i), "label": want[i]}
  assert source.where(8) == f"{shards[1]}, record 1"
  assert [(s.example, s.label) for s in source.labels()] == [*enumerate(want)]
  source.keep_first(4)
  assert len(list(source.labels())) == 4
  assert check_labels(source) == {0: 2, 1: 1, 2: 1}


def test_without_names_the_classes_are_given(tmp_path):
  path = write(tmp_path / "0", [1, 2, 3], names=None)
  source = ParquetImages([path], 3, label_offset=1)
  assert source.class_names is None
  assert [source[i]["label"] for i in range(3)] == [0, 1, 2]
  assert "labels seem to start at 1" in refusal(
    check_labels, ParquetImages([path], 3)
  )


def test_folders_as_hugging_face_has_them(tmp_path):
  for split, count in (("train", 2), ("validation", 1)):
    for shard in range(count):
      name = f"{split}-{shard:05d}-of-{count:05d}.parquet"
      write(tmp_path / name, [0, 1 + shard])
  assert len(open_images(tmp_path, "train")) == 4
  assert len(open_images(tmp_path, "test", 3)) == 2
  message = refusal(open_images, tmp_path, "train", 10)
  assert "have 3 class names, but --data.num-classes is 10" in message


@pytest.mark.parametrize("label", [-1, None])
def test_a_split_without_labels_is_called_so(tmp_path, label):
  source = ParquetImages([write(tmp_path / "0", [label] * 3)], 3)
  for call in (check_labels, lambda s: s[0]):
    assert "-1 marks images without a label" in refusal(call, source)


def test_a_row_without_bytes_is_a_bad_example(tmp_path):
  rows = [{"bytes": None, "path": "a.jpg"}, None, {"bytes": b"x"}]
  columns = {"image": pa.array(rows, IMAGE), "label": [0, 1, 2]}
  pq.write_table(pa.table(columns), tmp_path / "0")
  source = ParquetImages([tmp_path / "0"], 3)
  for row in (0, 1):
    with pytest.raises(BadExampleError, match="the row has no image"):
      source[row]
  assert source[2]["image"] == b"x"


@pytest.mark.parametrize(
  "columns, message",
  [
    ({"image": [b"x"]}, "needs the columns image and label, has image"),
    ({"img": [b"x"], "label": [1]}, "image and label, has img, label"),
    (
      {"image": [b"x"], "label": ["cat"]},
      "label is string; labels must be",
    ),
    ({"image": [b"x"], "label": [1.5]}, "label is double"),
    ({"image": ["x"], "label": [1]}, "image is string; it must be the"),
    ({"image": [[1, 2]], "label": [1]}, "image is list<"),
    ({"image": [{"path": "x"}], "label": [1]}, "image is struct<path: string>"),
    ({"image": [{"bytes": "x"}], "label": [1]}, "image is struct<bytes: str"),
  ],
)
def test_other_columns_are_named(tmp_path, columns, message):
  pq.write_table(pa.table(columns), tmp_path / "0")
  assert message in refusal(ParquetImages, [tmp_path / "0"], 3)


def test_shards_of_other_class_names_are_refused(tmp_path):
  shards = [write(tmp_path / "0", [0]), write(tmp_path / "1", [0], NAMES[::-1])]
  assert refusal(ParquetImages, shards, 3).startswith(
    f"{shards[1]}: has other class names"
  )


@pytest.mark.parametrize(
  "text",
  ["[", "3", "[]", '{"info": 3}', '{"info": {"features": {"label": 1}}}'],
)
def test_a_schema_without_names_is_passed_over(tmp_path, text):
  made = table([0]).replace_schema_metadata({"huggingface": text})
  pq.write_table(made, tmp_path / "0")
  assert ParquetImages([tmp_path / "0"], 3).class_names is None


def test_files_cut_short_and_empty_ones(folder):
  path = write(folder / "0", [0, 1, 2, 0])
  data = path.read_bytes()
  for size in (0, 3, 4, 11, len(data) // 2, len(data) - 1):
    path.write_bytes(data[:size])
    assert refusal(ParquetImages, [path], 3).startswith(f"{path}: ")
  assert "the shard is empty" in refusal(
    ParquetImages, [write(folder / "0", [])], 3
  )
  path.unlink()
  assert "No such file" in refusal(ParquetImages, [path], 3)


@pytest.mark.parametrize("step", [12, pytest.param(1, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_found(tmp_path, step):
  """Pages have checksums; the footer has none, but it counts its rows."""
  path = write(tmp_path / "0", [0, 1, 2, 0, 1, 2])
  data = path.read_bytes()
  want = [(file(i), i % 3) for i in range(6)]
  for at in range(0, len(data), step):
    damaged = bytearray(data)
    damaged[at] ^= 1 << at % 8
    path.write_bytes(damaged)
    try:
      source = ParquetImages([path], 3)
      found = []
      for i in range(len(source)):
        try:
          found.append(tuple(source[i].values()))
        except BadExampleError as error:
          assert "\n" not in str(error)
          found.append(None)
    except UsageError as error:
      assert "\n" not in str(error)
      continue
    pairs = zip(found, want, strict=True)
    assert all(f in (None, w) for f, w in pairs), at


def test_a_damaged_row_group_leaves_the_others(folder):
  path = write(folder / "0", [0, 1, 2] * 3)
  data = bytearray(path.read_bytes())
  data[data.index(file(4)) + 50] ^= 1
  path.write_bytes(data)
  source = ParquetImages([path], 3)
  for row in (3, 4, 5):
    with pytest.raises(BadExampleError, match="row group 1 is damaged"):
      source[row]
  assert [source[i]["image"] for i in (2, 6)] == [file(2), file(6)]
  assert len(list(source.labels())) == 9


def test_a_shard_that_has_gone_is_a_bad_example(folder):
  path = write(folder / "0", [0, 1, 2])
  source = ParquetImages([path], 3)
  path.unlink()
  with pytest.raises(BadExampleError, match="cannot be read: No such file"):
    source[0]


def test_threads_read_a_row_group_once_and_few_are_kept(tmp_path, monkeypatch):
  monkeypatch.setattr(module, "_MOST_KEPT", 1500)
  path = write(tmp_path / "0", [0, 1, 2] * 8)
  source = ParquetImages([path], 3)
  read, groups = source._recent_group.__wrapped__, []

  def counted(shard, group):
    groups.append(group)
    return read(shard, group)

  kept = source._recent_group.cache_info().maxsize
  assert kept < 3
  recent = module.functools.lru_cache(kept)(counted)
  source._recent_group = recent
  with ThreadPoolExecutor(8) as pool:
    found = list(pool.map(lambda i: source[i]["image"], [0] * 30 + [1] * 30))
  assert found == [file(0)] * 30 + [file(1)] * 30
  assert groups == [0]
  for row in (0, 9, 20, 0):
    assert source[row]["image"] == file(row)
  assert groups == [0, 3, 6, 0]


def test_a_row_group_too_large_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(module, "_LARGEST_GROUP", 1000)
  path = write(tmp_path / "0", [0] * 20, rows=20)
  message = refusal(ParquetImages, [path], 3)
  assert "more than the 1,000" in message and "row_group_size" in message


def test_pyarrow_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
  path = write(tmp_path / "0", [0])
  monkeypatch.setitem(sys.modules, "pyarrow", None)
  message = refusal(ParquetImages, [path], 3)
  assert message == (
    f"{path}: Parquet files need pip install 'podscale[parquet]'"
  )
