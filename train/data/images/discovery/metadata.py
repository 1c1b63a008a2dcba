"""Classes, labels and counts from the files that describe a data set."""

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

DATASET_INFO = "dataset_info.json"
"""Name of the file that TensorFlow Datasets writes beside its shards."""
_FEATURES, _LABEL_NAMES = "features.json", "label.labels.txt"
METADATA_FILES = (_FEATURES, DATASET_INFO, _LABEL_NAMES, SYNSET_MAPPING)
"""Names of the files that describe a data set, except for label files."""

# Errors from JSON that is damaged or was written by another program.
_UNREADABLE_JSON = (
  *(ValueError, TypeError, LookupError),
  *(AttributeError, OverflowError, RecursionError),
)


def find_classes(layout: DatasetLayout, outer: Path) -> None:
  """Find the names and the number of the classes."""
  train = layout.splits.get("train")
  if train and train.format == "folders":
    layout.class_names = tuple(folder_names(list_folder(train.folder)))
    layout.classes_from = f"the folders in {train.folder.name}/"
  else:
    _read_tfds(layout)
    mapping = _beside(layout.folder, outer, SYNSET_MAPPING)
    if mapping and layout.class_names is None:
      layout.class_names = read_synset_mapping(mapping)
      layout.classes_from = mapping.name
  if layout.class_names is not None:
    layout.num_classes = len(layout.class_names)


def has_class_folders(layout: DatasetLayout, split_layout: SplitLayout) -> bool:
  """Test if images beside a label file lie in folders of their classes."""
  folders = folder_names(list_folder(split_layout.folder))
  return bool(folders) and set(folders) <= set(layout.class_names or ())


def _read_tfds(layout: DatasetLayout) -> None:
  """Read the files that TensorFlow Datasets writes beside its shards."""
  names = layout.folder / _LABEL_NAMES
  if names.is_file():
    layout.class_names = tuple(line for line in read_lines(names) if line)
    layout.classes_from = names.name
  path = layout.folder / _FEATURES
  if not path.is_file():
    return
  try:
    features = json.loads("\n".join(read_lines(path)))
    features = features.get("featuresDict", features.get("content", {}))
    label = features.get("features", features)["label"]
    number = label.get("classLabel", label.get("content", {}))
    classes = int(number.get("numClasses", number.get("num_classes")))
  except _UNREADABLE_JSON:
    return  # labels of another type; the readers report them
  if classes < 1:
    raise UsageError(f"{path}: has {classes} classes")
  layout.num_classes = classes
  layout.classes_from = layout.classes_from or path.name
  if layout.class_names and len(layout.class_names) != layout.num_classes:
    raise UsageError(
      f"{names}: has {len(layout.class_names)} names, but {path.name} beside "
      f"it says {layout.num_classes} classes"
    )


def read_shard_sizes(split_layout: SplitLayout) -> dict[str, int]:
  """Read the number of records that TensorFlow Datasets gives each shard."""
  path = split_layout.folder / DATASET_INFO
  if not split_layout.shards or not path.is_file():
    return {}
  try:
    splits = json.loads("\n".join(read_lines(path)))["splits"]
    (split,) = (
      each for each in splits if each["name"] == split_layout.split_name
    )
    counts = [int(count) for count in split["shardLengths"]]
    return dict(zip(split_layout.shards, counts, strict=True))
  except _UNREADABLE_JSON:
    return {}  # from another program, or without shard sizes


def find_split_labels(
  layout: DatasetLayout, split: Split, split_layout: SplitLayout, outer: Path
) -> None:
  """Find the label file of a split whose images lie in one folder.

  Without one, the split moves from the layout's splits to its problems.
  """
  labels = split_layout.labels
  for folder in _between(layout.folder, outer):
    names = file_names(list_folder(folder))
    labels = labels or find_label_file(folder, names, split_layout.split_name)
  if labels:
    layout.splits[split] = replace(split_layout, labels=labels)
    return
  del layout.splits[split]
  layout.problems[split] = (
    f"{split_layout.folder}: has images outside class folders and no label "
    "file; put them into a folder for each class, or beside "
    f"{split_layout.split_name}/ a file {split_layout.split_name}.txt with an "
    "image's name and class on each line (for Kaggle's ILSVRC give the folder "
    "that holds ILSVRC/ and LOC_val_solution.csv)"
  )


def _between(inner: Path, outer: Path) -> list[Path]:
  """List the folders from `inner` up to `outer`."""
  folders = [inner]
  while folders[-1] != outer:
    folders.append(folders[-1].parent)
  return folders


def _beside(inner: Path, outer: Path, name: str) -> Path | None:
  paths = (folder / name for folder in _between(inner, outer))
  return next((path for path in paths if path.is_file()), None)
