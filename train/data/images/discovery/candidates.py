"""List all that may be the images of a split, by the names in a folder."""

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
  found: DatasetLayout, entries: Sequence[Entry]
) -> dict[Split, list[SplitLayout]]:
  """List all that may be the images of each split."""
  candidates: dict[Split, list[SplitLayout]] = {s: [] for s in SPLIT_ALIASES}
  by_word: dict[tuple[Split, str], list[str]] = {}
  other = []
  for name in file_names(entries):
    words = {split: split_aliases(name, split) for split in SPLIT_ALIASES}
    if not shard_format(name) or not any(words.values()):
      other.append(name)
      continue
    for split, (word, *_) in ((s, w) for s, w in words.items() if w):
      by_word.setdefault((split, word), []).append(name)
  for (split, word), names in by_word.items():
    candidates[split] += _shard_groups(found.folder, word, names)
  for split, words_of_split in SPLIT_ALIASES.items():
    for name in folder_names(entries):
      if name.lower() in words_of_split:
        candidates[split] += _look_inside(found, split, name)
  _ignore_others(found, other)
  return candidates


def _look_inside(
  found: DatasetLayout, split: Split, name: str
) -> list[SplitLayout]:
  """List what a split's own folder may be read as."""
  folder, word = found.folder / name, name.lower()
  entries = list_folder(folder)
  files = file_names(entries)
  shards = [file for file in files if shard_format(file)]
  _ignore_others(
    found,
    (
      name
      for name in files
      if not shard_format(name) and not name.lower().endswith(IMAGE_SUFFIXES)
    ),
  )
  return _shard_groups(folder, word, shards) + find_files(found, folder, word)


def find_files(
  found: DatasetLayout, folder: Path, word: str
) -> list[SplitLayout]:
  """List class folders, or images outside of class folders."""
  entries = list_folder(folder)
  files, folders = file_names(entries), folder_names(entries)
  images = [file for file in files if file.lower().endswith(IMAGE_SUFFIXES)]
  labels = find_label_file(folder, files, word)
  if (labels and (images or folders)) or (images and not folders):
    return [SplitLayout("labelled", word, folder, labels=labels)]
  if folders:
    found.ignore(images, f"outside of the class folders in {folder.name}/")
    return [SplitLayout("folders", word, folder)]
  return []


def _shard_groups(
  folder: Path, word: str, names: Sequence[str]
) -> list[SplitLayout]:
  by_kind: dict[ShardFormat, list[str]] = {}
  for name in names:
    if kind := shard_format(name):
      by_kind.setdefault(kind, []).append(name)
  return [
    SplitLayout(kind, word, folder, group) for kind, group in by_kind.items()
  ]


def _ignore_others(found: DatasetLayout, names: Iterable[str]) -> None:
  """Note the files that are not looked at further, each with the reason."""
  for name in names:
    if shard_format(name):
      found.ignore([name], "no split in its name")
    elif name.lower().endswith(_ARCHIVES):
      found.ignore([name], "a packed archive")
    elif name.lower().endswith(".arrow"):
      found.ignore([name], "Arrow files are not read, Parquet files are")
    elif name not in METADATA_FILES and not is_label_file(name):
      found.ignore([name], OTHER_FILES)
