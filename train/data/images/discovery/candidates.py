"""Candidates for the images of a split, by the names of files and folders."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from ...source import Split
from ..paths import Entry, file_names, folder_names, list_folder
from ..readers.encoded import IMAGE_SUFFIXES
from ..readers.label_files import find_label_file, is_label_file
from ..shard_names import (
  SPLIT_ALIASES,
  ShardFormat,
  shard_format,
  split_aliases,
)
from .layout import OTHER_FILES, DatasetLayout, SplitLayout
from .metadata import METADATA_FILES

_ARCHIVES = (".zip", ".gz", ".xz", ".zst", ".bz2", ".7z", ".rar")


def find_candidates(
  layout: DatasetLayout, entries: Sequence[Entry]
) -> dict[Split, list[SplitLayout]]:
  """List the candidates for the images of each split."""
  candidates: dict[Split, list[SplitLayout]] = {s: [] for s in SPLIT_ALIASES}
  shards: dict[tuple[Split, str], list[str]] = {}
  other = []
  for name in file_names(entries):
    found = {split: split_aliases(name, split) for split in SPLIT_ALIASES}
    if not shard_format(name) or not any(found.values()):
      other.append(name)
      continue
    for split, (alias, *_) in ((s, a) for s, a in found.items() if a):
      shards.setdefault((split, alias), []).append(name)
  for (split, alias), names in shards.items():
    candidates[split] += _shard_groups(layout.folder, alias, names)
  for split, aliases in SPLIT_ALIASES.items():
    for name in folder_names(entries):
      if name.lower() in aliases:
        candidates[split] += _look_inside(layout, split, name)
  _ignore_others(layout, other)
  return candidates


def _look_inside(
  layout: DatasetLayout, split: Split, name: str
) -> list[SplitLayout]:
  """List the candidates in a split's own folder."""
  folder, split_name = layout.folder / name, name.lower()
  entries = list_folder(folder)
  files = file_names(entries)
  shards = [file for file in files if shard_format(file)]
  _ignore_others(
    layout,
    (
      name
      for name in files
      if not shard_format(name) and not name.lower().endswith(IMAGE_SUFFIXES)
    ),
  )
  return _shard_groups(folder, split_name, shards) + find_files(
    layout, folder, split_name
  )


def find_files(
  layout: DatasetLayout, folder: Path, split_name: str
) -> list[SplitLayout]:
  """List class folders, or images outside of class folders."""
  entries = list_folder(folder)
  files, folders = file_names(entries), folder_names(entries)
  images = [file for file in files if file.lower().endswith(IMAGE_SUFFIXES)]
  labels = find_label_file(folder, files, split_name)
  if (labels and (images or folders)) or (images and not folders):
    return [SplitLayout("labelled", split_name, folder, labels=labels)]
  if folders:
    layout.ignore(images, f"outside of the class folders in {folder.name}/")
    return [SplitLayout("folders", split_name, folder)]
  return []


def _shard_groups(
  folder: Path, split_name: str, names: Sequence[str]
) -> list[SplitLayout]:
  by_format: dict[ShardFormat, list[str]] = {}
  for name in names:
    if found := shard_format(name):
      by_format.setdefault(found, []).append(name)
  return [
    SplitLayout(each, split_name, folder, group)
    for each, group in by_format.items()
  ]


def _ignore_others(layout: DatasetLayout, names: Iterable[str]) -> None:
  """Add the files that hold no images to the ignored files."""
  for name in names:
    if shard_format(name):
      layout.ignore([name], "no split in its name")
    elif name.lower().endswith(_ARCHIVES):
      layout.ignore([name], "a packed archive")
    elif name.lower().endswith(".arrow"):
      layout.ignore([name], "Arrow files are not read, Parquet files are")
    elif name not in METADATA_FILES and not is_label_file(name):
      layout.ignore([name], OTHER_FILES)
