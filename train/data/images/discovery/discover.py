"""What a folder of images holds: the one place that decides how it is read."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ....errors import UsageError
from ...source import Split
from ..index import NAME, PARTIAL, read_index
from ..paths import (
  Entry,
  as_path,
  file_names,
  folder_names,
  list_folder,
)
from ..shard_names import SPLIT_ALIASES, shard_format, split_aliases
from .candidates import find_candidates, find_files
from .choose import choose_split, refuse_shared_files
from .layout import FORMAT_NAMES, DatasetLayout, SplitLayout
from .metadata import (
  find_classes,
  find_split_labels,
  has_class_folders,
  read_shard_sizes,
)

_KAGGLE = ("ILSVRC", "Data", "CLS-LOC")
_LEVELS = 3  # DATASET/CONFIG/VERSION of TensorFlow Datasets
_MOST_FOLDERS = 64  # more are classes, not versions


def discover(folder: str | Path, loose: Split | None = None) -> DatasetLayout:
  """Decide what a folder of images is and where its splits are.

  Only the folders themselves are listed: no class folder, and no file is read
  but for the small ones that describe a data set.

  Args:
    folder: A local path or a URL.
    loose: The split that class folders or images are of that lie in the folder
      itself, where it has nothing else of that split.

  Raises:
    UsageError: the folder cannot be read, its description is damaged, or its
      conversion was not finished.
  """
  outer = as_path(folder)
  inner = _descend(outer)
  found = DatasetLayout(inner)
  entries = list_folder(inner)
  if NAME in file_names(entries):
    _find_converted(found)
    return found
  if PARTIAL in file_names(entries):
    raise UsageError(
      f"{inner}: holds a conversion that was not finished; run the same "
      "convert again"
    )
  candidates = find_candidates(found, entries)
  if loose and not candidates[loose]:
    candidates[loose] = find_files(found, inner, SPLIT_ALIASES[loose][0])
  for split in SPLIT_ALIASES:
    choose_split(found, split, candidates[split])
  refuse_shared_files(found)
  find_classes(found, outer)
  for split, where in list(found.splits.items()):
    found.splits[split] = replace(where, records=read_shard_sizes(where))
    if where.kind == "labelled" and has_class_folders(found, where):
      if where.labels:
        found.ignore([where.labels.name], f"{FORMAT_NAMES['folders']} are used")
      found.splits[split] = replace(where, kind="folders", labels=None)
    elif where.kind == "labelled":
      find_split_labels(found, split, where, outer)
  return found


def _descend(folder: Path) -> Path:
  """Find the one folder with data in it at or below `folder`."""
  folders = folder_names(list_folder(folder))
  for start in range(len(_KAGGLE)):
    if _KAGGLE[start] in folders:
      inner = folder.joinpath(*_KAGGLE[start:])
      if inner.is_dir():
        return inner
  level = [folder]
  for _ in range(_LEVELS + 1):
    listed = [(each, list_folder(each)) for each in level]
    holding = [each for each, entries in listed if _holds_data(entries)]
    if len(holding) > 1:
      raise UsageError(
        f"{folder}: has {len(holding)} data sets in it, {holding[0]} and "
        f"{holding[1]} among them; give the folder of one"
      )
    if holding:
      return holding[0]
    level = [
      each / name for each, entries in listed for name in folder_names(entries)
    ]
    if len(level) > _MOST_FOLDERS:
      break
  return folder


def _holds_data(entries: Sequence[Entry]) -> bool:
  words = sum(SPLIT_ALIASES.values(), ())
  return (
    NAME in file_names(entries)
    or any(name.lower() in words for name in folder_names(entries))
    or any(
      shard_format(name) and any(split_aliases(name, s) for s in SPLIT_ALIASES)
      for name in file_names(entries)
    )
  )


def _find_converted(found: DatasetLayout) -> None:
  index = read_index(found.folder)
  found.num_classes, found.classes_from = index.num_classes, NAME
  if index.class_names is not None:
    found.class_names = tuple(index.class_names)
  for split, words in SPLIT_ALIASES.items():
    shards = [shard.file for shard in index.splits.get(split, [])]
    if shards:
      found.splits[split] = SplitLayout(
        "podscale", words[0], found.folder, shards
      )
    else:
      found.problems[split] = f"{found.folder / NAME}: has no {split} images"
