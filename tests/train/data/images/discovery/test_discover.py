"""Layouts of folders in every common arrangement."""

import io
import json
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podscale.train.data.images import open_images
from podscale.train.data.images.discovery.discover import discover
from podscale.train.data.images.opening import open_evaluation
from podscale.train.data.images.paths import as_path
from podscale.train.data.images.readers.tfrecord import find_records
from podscale.train.data.tools.synthesize import synthesize, synthetic_jpeg
from podscale.train.errors import UsageError

COUNTS = {"train": 6, "test": 4}
CLASSES = 3
JPEG = synthetic_jpeg(0, 0, width=8, height=8)
SYNSETS = ["n01440764", "n01443537", "n02077923"]


def made(folder, layout, *, shards=2, **counts):
  """Write a small set into a folder that may hold another one."""
  new = folder / "new"
  synthesize(
    new,
    layout,
    examples=counts or COUNTS,
    classes=CLASSES,
    shards=shards,
    width=8,
    height=8,
  )
  for path in new.iterdir():
    path.rename(folder / path.name)
  new.rmdir()
  return folder


def lengths(folder):
  found = discover(folder)
  return {
    split: len(open_images(folder, split, found.num_classes or CLASSES))
    for split in ("train", "test")
  }


def refusal(folder, split="train"):
  with pytest.raises(UsageError) as error:
    open_images(folder, split, CLASSES)
  assert "\n" not in str(error.value)
  return str(error.value)


def rename(folder, pattern, change):
  for path in sorted(folder.glob(pattern)):
    path.rename(path.parent / change(path.name))


def class_folders(folder, names=SYNSETS, count=2):
  for name in names:
    (folder / name).mkdir(parents=True)
    for i in range(count):
      (folder / name / f"{name}_{i}.JPEG").write_bytes(JPEG)


def tar(path, names):
  with tarfile.open(path, "w") as file:
    for name in names:
      member = tarfile.TarInfo(name)
      member.size = len(JPEG)
      file.addfile(member, io.BytesIO(JPEG))


# --- D4: one evaluation set --------------------------------------------------

WORDS = ["validation", "val", "valid", "test"]


@pytest.mark.parametrize("layout", ["tfrecord", "array-record", "tar"])
@pytest.mark.parametrize("first", range(3))
def test_one_evaluation_set_is_used_and_the_other_named(
  tmp_path, layout, first
):
  word, other = WORDS[first], WORDS[first + 1]
  made(tmp_path, layout)
  rename(tmp_path, "validation*", lambda n: n.replace("validation", word))
  made(tmp_path, layout, test=4)
  rename(tmp_path, "validation*", lambda n: n.replace("validation", other))
  if word == "validation":  # the second set has taken its name
    made(tmp_path, layout, test=4)
  assert lengths(tmp_path) == COUNTS
  (said,) = open_images(tmp_path, "test", CLASSES).left_out
  assert said.startswith(f"{other}-") and said.endswith(f"({word} is used)")


def test_one_evaluation_folder_is_used_and_the_other_named(tmp_path):
  for word, count in (("train", 2), ("test", 3), ("val", 1), ("valid", 4)):
    class_folders(tmp_path / word, count=count)
  assert lengths(tmp_path) == {"train": 6, "test": 3}
  assert discover(tmp_path).left_out() == ("test/, valid/ (val is used)",)


# --- D5, D6: doubled shards and doubled splits -------------------------------


@pytest.mark.parametrize("layout", ["tfrecord", "array-record"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_two_conversions_in_one_folder_are_refused(tmp_path, layout, split):
  made(tmp_path, layout, shards=2)
  made(tmp_path, layout, shards=4, **{split: 8})
  message = refusal(tmp_path, split)
  assert "-00000-of-00002" in message and "-00000-of-00004" in message
  assert "two series" in message


@pytest.mark.parametrize(
  "name, words",
  [
    ("imagenet_train_val-00000-of-00001", ("train", "val")),
    ("train.test.tfrecord", ("train", "test")),
    ("validation_of_train-000000.tar", ("train", "validation")),
  ],
)
def test_a_file_of_both_splits_by_its_name_is_refused(tmp_path, name, words):
  made(tmp_path, "tfrecord")
  (tmp_path / "train-00000-of-00002").rename(tmp_path / name)
  for path in tmp_path.glob("*-00001-of-*"):
    path.unlink()
  (tmp_path / "validation-00000-of-00002").unlink()
  for split, (word, other) in (("train", words), ("test", words[::-1])):
    message = refusal(tmp_path, split)
    assert f"{name} names two splits, {word} and {other};" in message


def test_a_shard_in_the_other_splits_folder_is_refused(tmp_path):
  made(tmp_path, "tfrecord")
  for word in ("train", "validation"):
    (tmp_path / word).mkdir()
  rename(tmp_path, "train-*", lambda n: f"train/{n}")
  rename(tmp_path, "validation-*", lambda n: f"train/{n}")
  message = refusal(tmp_path)
  assert "-of-00002 names two splits, train and validation" in message


# --- D16: archives beside the images -----------------------------------------

ARCHIVES = ["ILSVRC2012_img_train.tar", "train.tar", "ILSVRC2012_img_val.tar"]


@pytest.mark.parametrize("archive", ARCHIVES)
@pytest.mark.parametrize("inside", ["", "train/", "val/"])
def test_class_folders_win_over_archives(tmp_path, archive, inside):
  class_folders(tmp_path / "train")
  class_folders(tmp_path / "val", count=1)
  before = open_images(tmp_path, "train").listing
  tar(tmp_path / f"{inside}{archive}", ["n01440764.tar", "n01443537.tar"])
  assert lengths(tmp_path) == {"train": 6, "test": 3}
  source = open_images(tmp_path, "train")
  assert source.listing == before
  assert f"{archive} (class folders are used)" in source.left_out[0]


@pytest.mark.parametrize("archive", ARCHIVES[:2])
@pytest.mark.parametrize(
  "members", [["n01440764.tar", "n01443537.tar"], ["a/1.JPEG", "a/2.JPEG"]]
)
def test_an_archive_alone_is_to_be_unpacked(tmp_path, archive, members):
  tar(tmp_path / archive, members)
  message = refusal(tmp_path)
  assert f"left out: {archive} (an archive without labels: unpack" in message


def test_an_archive_beside_shards_is_left_out(tmp_path):
  made(tmp_path, "tar")
  tar(tmp_path / "train.tar", ["a/1.JPEG", "a/2.JPEG"])
  assert lengths(tmp_path) == COUNTS
  assert "train.tar (an archive" in discover(tmp_path).left_out()[0]


# --- D17, D18: names and places of shards ------------------------------------

NAMES = [
  "flowers_{word}_{i:05d}-of-00002.tfrecord",
  "{word}_{j:05d}-of-00002.tfrecord",
  "{word}-{j:05d}-of-00002",
  "{word}_{j}.tfrecord",
  "{word}{i:02d}-400.tfrecord",
  "{word}{i:02d}-400.tfrec",
  "imagenet2012-{word}.tfrecord-{i:05d}-of-00002",
  "{word}.{i}_of_2",
]


@pytest.mark.parametrize("pattern", NAMES)
@pytest.mark.parametrize("word", ["validation", "val", "valid", "test"])
def test_names_of_tfrecord_shards(tmp_path, pattern, word):
  made(tmp_path, "tfrecord")
  want = open_images(tmp_path, "train", CLASSES)
  images = [want[i]["image"] for i in range(len(want))]
  for was, now in (("train", "train"), ("validation", word)):
    for i in (1, 0):
      name = pattern.format(word=now, i=i, j=i + 1)
      (tmp_path / f"{was}-{i:05d}-of-00002").rename(tmp_path / name)
  assert lengths(tmp_path) == COUNTS
  source = open_images(tmp_path, "train", CLASSES)
  assert [source[i]["image"] for i in range(len(source))] == images


@pytest.mark.parametrize("name", ["{n}", "{number:06d}.tar", "x-{number}.tar"])
@pytest.mark.parametrize("word", ["val", "validation", "valid", "test"])
def test_shards_inside_a_folder_for_each_split(tmp_path, name, word):
  made(tmp_path, "tar")
  for was, now in (("train", "train"), ("validation", word)):
    (tmp_path / now).mkdir()
    for number in range(2):
      path = tmp_path / f"{was}-{number:06d}.tar"
      n = path.name.replace(was, now)
      path.rename(tmp_path / now / name.format(n=n, number=number))
  assert lengths(tmp_path) == COUNTS


@pytest.mark.parametrize("layout", ["array-record", "tfrecord"])
def test_other_formats_inside_folders(tmp_path, layout):
  made(tmp_path, layout)
  for word in ("train", "validation"):
    (tmp_path / word).mkdir()
    rename(tmp_path, f"{word}-*", lambda n, word=word: f"{word}/{n}")
  assert lengths(tmp_path) == COUNTS


def test_a_missing_shard_inside_a_folder_is_numbered(tmp_path):
  made(tmp_path, "tfrecord")
  (tmp_path / "train").mkdir()
  rename(tmp_path, "train-*", lambda n: f"train/{n}")
  (tmp_path / "train" / "train-00001-of-00002").unlink()
  assert "1 of 2 shards are missing" in refusal(tmp_path)


# --- D19: files that are no shards -------------------------------------------

BESIDE = [
  "train-00000-of-00002.idx",
  "train-00000-of-00002.index",
  "train-00000-of-00002.crc",
  "train-00002-of-00003.tmp",
  "train-00002-of-00003.part",
  "train-00000-of-00002.sha256",
  "train.json",
  "train_README.txt",
  "README.md",
  "checksums",
]


@pytest.mark.parametrize("layout", ["tfrecord", "array-record", "tar"])
def test_other_files_are_counted_and_left_out(tmp_path, layout):
  made(tmp_path, layout)
  before = open_images(tmp_path, "train", CLASSES).listing
  for name in BESIDE:
    (tmp_path / name).write_bytes(b"x")
  (tmp_path / ".train-00000-of-00002.swp").write_bytes(b"x")
  source = open_images(tmp_path, "train", CLASSES)
  assert source.listing == before
  (said,) = source.left_out
  assert "1 .idx" in said and "1 .crc" in said and "1 checksums" in said


@pytest.mark.parametrize(
  "name, reason",
  [
    ("train-00000-of-00001.arrow", "Arrow files are not read"),
    ("train.zip", "a packed archive"),
    ("images.tar", "no split in its name"),
  ],
)
def test_what_might_be_data_is_named_with_the_reason(tmp_path, name, reason):
  (tmp_path / name).write_bytes(b"x")
  message = refusal(tmp_path)
  assert f"{name} (" in message and reason in message


# --- Kinds that do not go together -------------------------------------------


def test_shards_beside_class_folders_of_one_split_are_refused(tmp_path):
  made(tmp_path, "tfrecord")
  class_folders(tmp_path / "train")
  message = refusal(tmp_path)
  assert "several formats: TFRecord shards and class folders" in message
  assert lengths_of_test(tmp_path) == 4


def lengths_of_test(folder):
  return len(open_images(folder, "test", CLASSES))


# --- TensorFlow Datasets -----------------------------------------------------


def tfds(folder, layout="tfrecord", classes=CLASSES, names=True):
  folder.mkdir(parents=True)
  made(folder, layout)
  rename(folder, "*-of-*", lambda n: f"birds-{n}")
  label = {
    "classLabel": {"numClasses": str(classes)},
    "pythonClassName": "tensorflow_datasets...ClassLabel",
  }
  features = {"featuresDict": {"features": {"image": {}, "label": label}}}
  (folder / "features.json").write_text(json.dumps(features))
  splits = [
    {"name": "train", "shardLengths": ["3", "3"]},
    {"name": "validation", "shardLengths": ["2", "2"]},
  ]
  info = json.dumps({"name": "birds", "splits": splits})
  (folder / "dataset_info.json").write_text(info)
  if names:
    text = "".join(f"bird {i}\n" for i in range(classes))
    (folder / "label.labels.txt").write_text(text)
  return folder


@pytest.mark.parametrize("layout", ["tfrecord", "array-record"])
@pytest.mark.parametrize("place", ["", "1.0.0", "config/1.0.0"])
def test_tfds_says_its_classes(tmp_path, layout, place):
  inner = tfds(tmp_path / "birds" / place, layout)
  for split, count in COUNTS.items():
    source = open_images(tmp_path / "birds", split)
    assert (len(source), source.num_classes) == (count, CLASSES)
    assert source.class_names == ("bird 0", "bird 1", "bird 2")
    assert str(inner) in source.description


def test_tfds_without_names_says_its_number_of_classes(tmp_path):
  source = open_images(tfds(tmp_path / "birds", names=False), "train")
  assert (source.num_classes, source.class_names) == (CLASSES, None)


@pytest.mark.parametrize(
  "split, word", [("train",) * 2, ("test", "validation")]
)
def test_a_tfds_shard_cut_at_a_record_is_refused(tmp_path, split, word):
  folder = tfds(tmp_path / "birds")
  path = folder / f"birds-{word}-00001-of-00002"
  path.write_bytes(path.read_bytes()[: find_records(path)[-2]])
  records = COUNTS[split] // 2
  assert (
    f"{path}: has {records - 1} records, but dataset_info.json has "
    f"{records}: the shard is cut short"
  ) in refusal(folder, split)


@pytest.mark.parametrize(
  "info",
  [
    "{}",
    "x",
    "[]",
    '{"splits": [{"name": "train"}, {"shardLengths": 3}]}',
    '{"splits": [{"name": "train", "shardLengths": ["3"]}]}',
    '{"splits": [{"name": "other", "shardLengths": ["1", "1"]}]}',
    '{"splits": [{"name": "train", "shardLengths": [1e999, 1]}]}',
    "[" * 100_000,
  ],
)
def test_a_description_without_counts_is_passed_over(tmp_path, info):
  folder = tfds(tmp_path / "birds")
  (folder / "dataset_info.json").write_text(info)
  (folder / "features.json").write_text(info)
  assert lengths(folder) == COUNTS


def test_tfds_with_other_names_than_classes_is_refused(tmp_path):
  tfds(tmp_path / "birds", classes=4)
  (tmp_path / "birds" / "label.labels.txt").write_text("a\nb\n")
  message = refusal(tmp_path / "birds")
  assert "label.labels.txt: has 2 names" in message and "4 classes" in message


def test_another_number_of_classes_than_the_data_says_is_refused(tmp_path):
  tfds(tmp_path / "birds", classes=4)
  message = refusal(tmp_path / "birds")
  assert "has 4 classes, but --data.num-classes is 3" in message


@pytest.mark.parametrize("number", ["0", "-1"])
def test_tfds_without_classes_is_refused(tmp_path, number):
  tfds(tmp_path / "birds", classes=int(number), names=False)
  message = refusal(tmp_path / "birds")
  assert f"features.json: has {number} classes" in message


@pytest.mark.parametrize("text", ["", "[]", "{", '{"featuresDict": 3}', "null"])
def test_another_features_file_says_nothing(tmp_path, text):
  tfds(tmp_path / "birds", names=False)
  (tmp_path / "birds" / "features.json").write_text(text)
  assert open_images(tmp_path / "birds", "train").num_classes == 1000


def test_of_several_versions_none_is_guessed(tmp_path):
  for version in ("1.0.0", "2.0.0"):
    tfds(tmp_path / "birds" / version)
  message = refusal(tmp_path / "birds")
  assert "holds 2 data sets, such as " in message
  assert "/1.0.0 and " in message and "/2.0.0; give the" in message


@pytest.mark.parametrize(
  "pattern",
  [
    "data/{word}-{i:05d}-of-00002-0a1b2c3d4e5f6071.parquet",
    "data/{word}-{i:05d}-of-00002.parquet",
    "default/{word}/{i:04d}.parquet",
    "{word}-{i:05d}-of-00002.parquet",
  ],
)
@pytest.mark.parametrize("word", ["validation", "valid", "test"])
def test_parquet_shards_of_a_hugging_face_repository(tmp_path, pattern, word):
  (tmp_path / "README.md").write_text("x")
  (tmp_path / ".git" / "train").mkdir(parents=True)
  for split in ("train", word):
    for i in range(2):
      rows = [{"image": {"bytes": JPEG, "path": None}, "label": i}] * 2
      path = tmp_path / pattern.format(word=split, i=i)
      path.parent.mkdir(parents=True, exist_ok=True)
      pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
  assert lengths(tmp_path) == {"train": 4, "test": 4}
  found = discover(tmp_path)
  assert [s.format for s in found.splits.values()] == ["parquet", "parquet"]


@pytest.mark.parametrize("train, val", [("Train", "Val"), ("TRAIN", "TEST")])
def test_folders_of_splits_may_have_capitals(tmp_path, train, val):
  class_folders(tmp_path / train)
  class_folders(tmp_path / val, count=1)
  assert lengths(tmp_path) == {"train": 6, "test": 3}


# --- Flat validation folders -------------------------------------------------


def flat(root, word="val", count=4):
  """Make class folders to train on, and one folder of images to evaluate on."""
  class_folders(root / "train")
  (root / word).mkdir(parents=True)
  names = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, count + 1)]
  for name in names:
    (root / word / name).write_bytes(JPEG)
  return names


TRUE = [2, 0, 0, 1]


def label_text(kind, names):
  rows = list(zip(names, (SYNSETS[i] for i in TRUE), strict=True))
  rows = rows[::-1]
  return {
    "synsets": "".join(f"{SYNSETS[i]}\n" for i in TRUE),
    "names": "".join(f"{n} {s}\n" for n, s in rows),
    "stems": "".join(f"{n[:-5]}\t{s}\n" for n, s in rows),
    "integers": "".join(
      f"val/{n} {label}\n" for n, label in zip(names, TRUE, strict=True)
    ),
    "kaggle": "ImageId,PredictionString\n"
    + "".join(f"{n[:-5]},{s} 1 2 3 4 {s} 5 6 7 8\n" for n, s in rows),
    "tiny": "".join(f"{n}\t{s}\t0\t32\t44\t62\n" for n, s in rows),
    "csv": "filename,label\n" + "".join(f"{n},{s}\n" for n, s in rows),
  }[kind]


@pytest.mark.parametrize(
  "file, kind",
  [
    ("imagenet_2012_validation_synset_labels.txt", "synsets"),
    ("synset_labels.txt", "synsets"),
    ("val.txt", "names"),
    ("val.txt", "integers"),
    ("val_labels.txt", "stems"),
    ("val_map.txt", "names"),
    ("validation.csv", "csv"),
    ("LOC_val_solution.csv", "kaggle"),
    ("val_annotations.txt", "tiny"),
  ],
)
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("word", ["val", "validation", "valid"])
def test_a_label_file_says_the_classes(tmp_path, file, kind, inside, word):
  names = flat(tmp_path, word)
  place = tmp_path / word if inside else tmp_path
  (place / file).write_text(label_text(kind, names))
  source = open_images(tmp_path, "test")
  assert [source[i]["label"] for i in range(4)] == TRUE
  assert [source.where(i).rpartition("/")[2] for i in range(4)] == names
  assert source.class_names == tuple(SYNSETS) and source.left_out == ()


def test_images_of_tiny_imagenet_lie_one_folder_deeper(tmp_path):
  names = flat(tmp_path)
  (tmp_path / "val" / "images").mkdir()
  rename(tmp_path / "val", "*.JPEG", lambda n: f"images/{n}")
  text = label_text("tiny", names)
  (tmp_path / "val" / "val_annotations.txt").write_text(text)
  source = open_images(tmp_path, "test")
  assert [source[i]["label"] for i in range(4)] == TRUE


@pytest.mark.parametrize("given", [0, 1, 2])
def test_kaggles_layout_from_its_root_or_below(tmp_path, given):
  inner = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
  names = flat(inner)
  (inner / "test").mkdir()
  (inner / "test" / "ILSVRC2012_test_00000001.JPEG").write_bytes(JPEG)
  notes = tmp_path / "ILSVRC" / "Annotations" / "CLS-LOC" / "train"
  class_folders(notes)
  root = [tmp_path, tmp_path / "ILSVRC", tmp_path / "ILSVRC" / "Data"][given]
  (root / "LOC_val_solution.csv").write_text(label_text("kaggle", names))
  (root / "LOC_train_solution.csv").write_text("ImageId,Prediction\n")
  (root / "LOC_synset_mapping.txt").write_text("n01440764 tench\n")
  assert lengths(root) == {"train": 6, "test": 4}
  source = open_images(root, "test")
  assert [source[i]["label"] for i in range(4)] == TRUE
  assert source.left_out == ("test/ (val is used)",)
  # The labels are above the folder that is given.
  assert "LOC_val_solution.csv" in refusal(inner, "test")


def test_the_synset_mapping_says_the_labels_beside_shards(tmp_path):
  names = flat(tmp_path)
  shutil.rmtree(tmp_path / "train")
  made(tmp_path, "tfrecord", train=6)
  (tmp_path / "val.txt").write_text(label_text("names", names))
  assert "whose label is unknown" in refusal(tmp_path, "test")
  mapping = "".join(f"{s} some, thing\n" for s in SYNSETS)
  (tmp_path / "LOC_synset_mapping.txt").write_text(mapping)
  source = open_images(tmp_path, "test")
  assert [source[i]["label"] for i in range(4)] == TRUE


@pytest.mark.parametrize(
  "file, text, message",
  [
    (
      "ILSVRC2012_validation_ground_truth.txt",
      "490\n361\n171\n822\n",
      "do not follow the sorted synsets, so they are no labels",
    ),
    ("val.txt", "490\n361\n171\n822\n", "do not follow the sorted"),
    ("val_synset_labels.txt", "n01440764\n", "has 1 labels for 4 images"),
    ("val.txt", "{names[0]} 0\n", "no label for 3 of 4 images, such as"),
    ("val.txt", "{all} 0\nmore.JPEG 1\n", "names 1 missing images"),
    ("val.txt", "{all} 1\n", "labels 1 to 1, so they may start at 0 or at 1"),
    ("val.txt", "{all} 3\n", "give --data.label-offset 0 or 1"),
    (
      "val.txt",
      "{names[0]} 0\n{names[1]} 3\n{names[2]} 0\n{names[3]} 0\n",
      "labels 0 to 3, but the 3 classes are 0 to 2",
    ),
    ("val.txt", "{all} -1\n", "labels -1 to -1"),
    ("val.txt", "{all} " + "9" * 5000 + "\n", "which is not among the 3"),
    ("val.txt", "{all} n999\n", "class 'n999', which is not among the 3"),
    ("val.txt", "{all} 0\n{names[1]} 1\n", "has two classes, 0 and 1"),
    ("val.txt", "{all}\n", "has a class only in some lines"),
    ("val.txt", "", "no label for 4 of 4 images"),
  ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, file, text, message):
  names = flat(tmp_path)
  lines = []
  for line in text.splitlines():
    each = names if "{all}" in line else [""]
    lines += [line.replace("{all}", name).format(names=names) for name in each]
  if message == "has a class only in some lines":
    lines, message = [names[0], f"{names[1]} 0"], "has no class; write"
  (tmp_path / file).write_text("\n".join(lines))
  assert message in refusal(tmp_path, "test")


@pytest.mark.parametrize("inside", [True, False])
def test_classes_in_an_unclear_order_of_names_are_refused(tmp_path, inside):
  """10.jpg sorts before 2.jpg as text, and behind it as a number."""
  class_folders(tmp_path / "train")
  (tmp_path / "val").mkdir()
  for i in range(1, 11):
    (tmp_path / "val" / f"{i}.jpg").write_bytes(JPEG)
  labels = (tmp_path / "val" if inside else tmp_path) / "val.txt"
  labels.write_text("".join(f"{SYNSETS[i % 3]}\n" for i in range(10)))
  message = refusal(tmp_path, "test")
  assert "the order of 10.jpg and 2.jpg is ambiguous" in message
  labels.write_text(
    "".join(f"{i}.jpg {SYNSETS[i % 3]}\n" for i in range(1, 11))
  )
  source = open_images(tmp_path, "test")
  numbers = (int(Path(source.where(i)).stem) for i in range(10))
  assert [source[i]["label"] for i in range(10)] == [n % 3 for n in numbers]


@pytest.mark.parametrize(
  "header, behind",
  [("file,age,label", "1,n01"), ("id,a,b", "2 0"), ("", "0 7")],
)
def test_a_number_among_other_columns_is_no_class(tmp_path, header, behind):
  names = flat(tmp_path)
  lines = [header, *(f"{name},{behind}" for name in names)]
  (tmp_path / "val.csv").write_text("\n".join(lines))
  message = refusal(tmp_path, "test")
  assert f"behind {names[0]}, and each may be the class" in message


@pytest.mark.parametrize(
  "files",
  [
    ("val.csv", "val.txt"),
    ("val.txt", "val_labels.txt"),
    ("LOC_val_solution.csv", "LOC_validation_solution.csv"),
  ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_two_label_files_are_refused(tmp_path, files, inside):
  names = flat(tmp_path)
  for file in files:
    path = (tmp_path / "val" if inside else tmp_path) / file
    path.write_text(label_text("names", names))
  assert f"images, {files[0]} and {files[1]}; keep" in refusal(tmp_path, "test")


@pytest.mark.parametrize("offset", [0, 1])
def test_an_offset_settles_the_numbers_of_a_label_file(tmp_path, offset):
  names = flat(tmp_path)
  (tmp_path / "val.txt").write_text("".join(f"{name} 1\n" for name in names))
  source = open_images(tmp_path, "test", label_offset=offset)
  assert source[0]["label"] == 1 - offset


def test_a_number_is_no_label_where_numbers_are_names(tmp_path):
  """Class 1 may be the folder 001 or the second one."""
  class_folders(tmp_path / "train", ["001", "002", "003"])
  (tmp_path / "val").mkdir()
  (tmp_path / "val" / "a.jpg").write_bytes(JPEG)
  (tmp_path / "val.txt").write_text("a.jpg 1\n")
  assert "class '1', which is not among the 3" in refusal(tmp_path, "test")
  (tmp_path / "val.txt").write_text("a.jpg 003\n")
  assert open_images(tmp_path, "test")[0]["label"] == 2


def test_a_name_of_two_classes_is_no_label(tmp_path):
  """ImageNet has two cranes."""
  names = flat(tmp_path)
  shutil.rmtree(tmp_path / "train")
  made(tmp_path, "tfrecord", train=6)
  (tmp_path / "label.labels.txt").write_text("crane\ndog\ncrane\n")
  text = "".join(f"{name} crane\n" for name in names)
  (tmp_path / "val.txt").write_text(text)
  assert "'crane', but 2 classes have this name" in refusal(tmp_path, "test")
  (tmp_path / "val.txt").write_text(text.replace("crane", "2"))
  assert open_images(tmp_path, "test", label_offset=0)[0]["label"] == 2


def test_a_label_file_that_is_no_text_is_refused(tmp_path):
  flat(tmp_path)
  (tmp_path / "val.txt").write_bytes(b"\xff\xfe\x00")
  assert "not a UTF-8 text file" in refusal(tmp_path, "test")


def test_images_without_labels_are_refused_with_the_cure(tmp_path):
  flat(tmp_path)
  message = refusal(tmp_path, "test")
  assert "no label file" in message and "val.txt" in message


# --- Places ------------------------------------------------------------------


@pytest.mark.parametrize(
  "layout", ["tfrecord", "array-record", "tar", "folder"]
)
def test_moved_data_has_the_same_listing(tmp_path, layout):
  (tmp_path / "one").mkdir()
  made(tmp_path / "one", layout)
  before = [open_images(tmp_path / "one", s, CLASSES).listing for s in COUNTS]
  (tmp_path / "one").rename(tmp_path / "two")
  after = [open_images(tmp_path / "two", s, CLASSES).listing for s in COUNTS]
  assert before == after and before[0] != before[1]


@pytest.mark.parametrize("layout", ["folder", "tar", "tfrecord"])
def test_a_set_behind_a_url(tmp_path, layout):
  made(tmp_path, layout)
  remote = as_path(f"memory://finding/{layout}")
  for path in tmp_path.rglob("*"):
    if path.is_file():
      copy = remote / str(path.relative_to(tmp_path))
      copy.parent.mkdir(parents=True, exist_ok=True)
      copy.write_bytes(path.read_bytes())
  for split in COUNTS:
    here = open_images(tmp_path, split, CLASSES)
    there = open_images(str(remote), split, CLASSES)
    assert there.listing == here.listing
    assert [there[i] for i in range(len(there))] == [
      here[i] for i in range(len(here))
    ]
    assert there.where(0).startswith("memory://finding")


# --- Evaluation on another set -----------------------------------------------


@pytest.mark.parametrize("inside", ["", "val", "test"])
def test_another_set_has_the_labels_of_the_training_classes(tmp_path, inside):
  """ImageNet-R has 200 of the classes and no folder for a split."""
  class_folders(tmp_path / inside, SYNSETS[1:])
  source = open_evaluation(tmp_path, None, SYNSETS)
  assert source.num_classes == 3
  assert [source[i]["label"] for i in range(4)] == [1, 2, 1, 2]


def test_another_sets_classes_must_be_among_the_training_classes(tmp_path):
  class_folders(tmp_path, ["0", "1"])
  with pytest.raises(UsageError, match="2 of its classes are not among the 3"):
    open_evaluation(tmp_path, None, SYNSETS)


def test_class_folders_without_a_split_are_not_guessed(tmp_path):
  class_folders(tmp_path)
  assert "no train images" in refusal(tmp_path)
  assert "no test images" in refusal(tmp_path, "test")


# --- Any names at all --------------------------------------------------------

PARTS = [
  *("train", "val", "validation", "valid", "test", "flowers", "ILSVRC"),
  *("_", "-", ".", "0", "1", "00000-of-00002", "2_of_2", "400", "é", "[x]"),
  *(".tfrecord", ".tar", ".array_record", ".parquet", ".idx", ".jpg", ".txt"),
  *("features.json", "label.labels.txt", "val.txt", "LOC_val_solution.csv"),
]
NAME = st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map("".join)
CONTENT = st.sampled_from([b"", b"{}", b"a b\n", b"1\n", b"\xff", bytes(2048)])
FOLDER = st.recursive(
  CONTENT, lambda inner: st.dictionaries(NAME, inner, max_size=4)
)


def fill(folder, tree):
  folder.mkdir()
  for name, inside in tree.items():
    if name.strip("."):
      if isinstance(inside, dict):
        fill(folder / name, inside)
      else:
        (folder / name).write_bytes(inside)


@settings(max_examples=50, deadline=None)
@given(tree=st.dictionaries(NAME, FOLDER, max_size=5))
def test_any_folder_is_opened_or_refused_in_one_line(tree):
  with tempfile.TemporaryDirectory() as parent:
    folder = Path(parent) / "data"
    fill(folder, tree)
    for split in ("train", "test"):
      try:
        open_images(folder, split)
      except UsageError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_shard_of_both_splits_by_a_link_is_refused(tmp_path, link):
  synthesize(tmp_path / "a", "tfrecord", examples={"train": 8, "test": 4})
  shard = tmp_path / "a" / "validation-00001-of-00002"
  shard.unlink()
  link(tmp_path / "a" / "train-00001-of-00002", shard)
  with pytest.raises(UsageError, match="is a link to training images"):
    open_images(tmp_path / "a", "test")
  assert len(open_images(tmp_path / "a", "train")) == 8


def test_a_folder_of_both_splits_by_a_link_is_refused(tmp_path):
  synthesize(tmp_path / "a", "folder", examples={"train": 8}, classes=2)
  (tmp_path / "a" / "val").symlink_to("train", target_is_directory=True)
  with pytest.raises(UsageError, match="is a link to training images"):
    open_images(tmp_path / "a", "test")


def test_class_folders_win_over_a_label_file(tmp_path):
  synthesize(
    tmp_path / "a", "folder", examples={"train": 8, "test": 4}, classes=2
  )
  expected = [e["label"] for e in open_images(tmp_path / "a", "test")]
  names = sorted(path.name for path in (tmp_path / "a" / "val").rglob("*.jpg"))
  lines = (f"{name} class-0001\n" for name in names)
  (tmp_path / "a" / "val" / "val.txt").write_text("".join(lines))
  source = open_images(tmp_path / "a", "test")
  assert [example["label"] for example in source] == expected == [0, 1, 0, 1]
  assert "val.txt (class folders are used)" in source.left_out
