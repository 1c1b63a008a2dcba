"""Read classes, labels and counts from the files that describe a data set."""

import json
from dataclasses import replace
from pathlib import Path

from ....errors import UsageError
from ...source import Split
from ..paths import file_names, folder_names, list_folder
from ..readers.label_files import (
  SYNSET_MAPPING,
  find_label_file,
  read_lines,
  read_synset_mapping,
)
from .layout import DatasetLayout, SplitLayout

INFO = "dataset_info.json"
"""What TensorFlow Datasets writes beside its shards."""
_FEATURES, _LABEL_NAMES = "features.json", "label.labels.txt"
METADATA_FILES = (_FEATURES, INFO, _LABEL_NAMES, SYNSET_MAPPING)
"""The names of such files, but for label files."""

# What reading JSON raises that is damaged or another program's.
_UNREADABLE_JSON = (
  *(ValueError, TypeError, LookupError),
  *(AttributeError, OverflowError, RecursionError),
)


def find_classes(found: DatasetLayout, outer: Path) -> None:
  """Find names and number of the classes, from what describes the data."""
  train = found.splits.get("train")
  if train and train.kind == "folders":
    found.class_names = tuple(folder_names(list_folder(train.folder)))
    found.classes_from = f"the folders in {train.folder.name}/"
  else:
    _read_tfds(found)
    mapping = _beside(found.folder, outer, SYNSET_MAPPING)
    if mapping and found.class_names is None:
      found.class_names = read_synset_mapping(mapping)
      found.classes_from = mapping.name
  if found.class_names is not None:
    found.num_classes = len(found.class_names)


def has_class_folders(found: DatasetLayout, where: SplitLayout) -> bool:
  """Tell whether images beside a label file lie in folders of their classes."""
  folders = folder_names(list_folder(where.folder))
  return bool(folders) and set(folders) <= set(found.class_names or ())


def _read_tfds(found: DatasetLayout) -> None:
  """Read what TensorFlow Datasets writes beside its shards."""
  names = found.folder / _LABEL_NAMES
  if names.is_file():
    found.class_names = tuple(line for line in read_lines(names) if line)
    found.classes_from = names.name
  path = found.folder / _FEATURES
  if not path.is_file():
    return
  try:
    features = json.loads("\n".join(read_lines(path)))
    features = features.get("featuresDict", features.get("content", {}))
    label = features.get("features", features)["label"]
    number = label.get("classLabel", label.get("content", {}))
    classes = int(number.get("numClasses", number.get("num_classes")))
  except _UNREADABLE_JSON:
    return  # its labels are of another kind; the readers say so
  if classes < 1:
    raise UsageError(f"{path}: has {classes} classes")
  found.num_classes = classes
  found.classes_from = found.classes_from or path.name
  if found.class_names and len(found.class_names) != found.num_classes:
    raise UsageError(
      f"{names}: has {len(found.class_names)} names, but {path.name} beside it "
      f"says {found.num_classes} classes"
    )


def read_shard_sizes(where: SplitLayout) -> dict[str, int]:
  """Read how many records TensorFlow Datasets has written to each shard."""
  path = where.folder / INFO
  if not where.shards or not path.is_file():
    return {}
  try:
    splits = json.loads("\n".join(read_lines(path)))["splits"]
    (split,) = (each for each in splits if each["name"] == where.word)
    counts = [int(count) for count in split["shardLengths"]]
    return dict(zip(where.shards, counts, strict=True))
  except _UNREADABLE_JSON:
    return {}  # it is another program's, or says nothing of its shards


def find_split_labels(
  found: DatasetLayout, split: Split, where: SplitLayout, outer: Path
) -> None:
  """Find the label file of a split whose images lie in one folder."""
  labels = where.labels
  for folder in _between(found.folder, outer):
    names = file_names(list_folder(folder))
    labels = labels or find_label_file(folder, names, where.word)
  if labels:
    found.splits[split] = replace(where, labels=labels)
    return
  del found.splits[split]
  found.problems[split] = (
    f"{where.folder}: has images outside class folders and no label file; put "
    f"them into a folder for each class, or beside {where.word}/ a file "
    f"{where.word}.txt with an image's name and class on each line "
    "(for Kaggle's ILSVRC give the folder that holds ILSVRC/ and "
    "LOC_val_solution.csv)"
  )


def _between(inner: Path, outer: Path) -> list[Path]:
  """List the folders from the data's up to the one that was given."""
  folders = [inner]
  while folders[-1] != outer:
    folders.append(folders[-1].parent)
  return folders


def _beside(inner: Path, outer: Path, name: str) -> Path | None:
  paths = (folder / name for folder in _between(inner, outer))
  return next((path for path in paths if path.is_file()), None)
