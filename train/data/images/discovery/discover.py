"""The decision how a folder of images is read; no other place decides it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ....errors import UsageError
from ...source import Split
from ..index import INDEX_FILE, PARTIAL_INDEX_FILE, read_index
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
  """Find the splits of a folder of images, and their formats.

  This lists folders, but no class folders, and reads only the small files that
  describe a data set.

  Args:
    folder: Local path or URL.
    loose: Split of class folders or images that lie directly in the folder, if
      the folder has nothing else of that split.

  Returns:
    The layout; a split that cannot be opened is among its problems.

  Raises:
    UsageError: The folder cannot be read, its description is damaged, or its
      conversion was not finished.
  """
  outer = as_path(folder)
  inner = _descend(outer)
  layout = DatasetLayout(inner)
  entries = list_folder(inner)
  if INDEX_FILE in file_names(entries):
    _find_converted(layout)
    return layout
  if PARTIAL_INDEX_FILE in file_names(entries):
    raise UsageError(
      f"{inner}: holds an unfinished conversion; run the same convert command "
      "again"
    )
  candidates = find_candidates(layout, entries)
  if loose and not candidates[loose]:
    candidates[loose] = find_files(layout, inner, SPLIT_ALIASES[loose][0])
  for split in SPLIT_ALIASES:
    choose_split(layout, split, candidates[split])
  refuse_shared_files(layout)
  find_classes(layout, outer)
  for split, split_layout in list(layout.splits.items()):
    layout.splits[split] = replace(
      split_layout, records=read_shard_sizes(split_layout)
    )
    if split_layout.format == "labelled" and has_class_folders(
      layout, split_layout
    ):
      if split_layout.labels:
        layout.ignore(
          [split_layout.labels.name], f"{FORMAT_NAMES['folders']} are used"
        )
      layout.splits[split] = replace(
        split_layout, format="folders", labels=None
      )
    elif split_layout.format == "labelled":
      find_split_labels(layout, split, split_layout, outer)
  return layout


def _descend(folder: Path) -> Path:
  """Find the only folder with data at or below `folder`."""
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
        f"{folder}: holds {len(holding)} data sets, such as {holding[0]} and "
        f"{holding[1]}; give the folder of one"
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
  aliases = sum(SPLIT_ALIASES.values(), ())
  return (
    INDEX_FILE in file_names(entries)
    or any(name.lower() in aliases for name in folder_names(entries))
    or any(
      shard_format(name) and any(split_aliases(name, s) for s in SPLIT_ALIASES)
      for name in file_names(entries)
    )
  )


def _find_converted(layout: DatasetLayout) -> None:
  index = read_index(layout.folder)
  layout.num_classes, layout.classes_from = index.num_classes, INDEX_FILE
  if index.class_names is not None:
    layout.class_names = tuple(index.class_names)
  for split, aliases in SPLIT_ALIASES.items():
    shards = [shard.file for shard in index.splits.get(split, [])]
    if shards:
      layout.splits[split] = SplitLayout(
        "podscale", aliases[0], layout.folder, shards
      )
    else:
      layout.problems[split] = (
        f"{layout.folder / INDEX_FILE}: has no {split} images"
      )
