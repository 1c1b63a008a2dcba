"""List all that may be the images of a split, by the names in a folder."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from ...source import Split
from ..paths import Entry, file_names, folder_names, list_folder
from ..readers.encoded import IMAGE_SUFFIXES
from ..readers.label_files import find_label_file, is_label_file
from ..shard_names import SPLIT_WORDS, ShardKind, shard_kind, split_words
from .layout import OTHER_FILES, FoundData, FoundSplit
from .metadata import DESCRIPTIONS

_ARCHIVES = (".zip", ".gz", ".xz", ".zst", ".bz2", ".7z", ".rar")


def find_candidates(
  found: FoundData, entries: Sequence[Entry]
) -> dict[Split, list[FoundSplit]]:
  """List all that may be the images of each split."""
  candidates: dict[Split, list[FoundSplit]] = {s: [] for s in SPLIT_WORDS}
  by_word: dict[tuple[Split, str], list[str]] = {}
  other = []
  for name in file_names(entries):
    words = {split: split_words(name, split) for split in SPLIT_WORDS}
    if not shard_kind(name) or not any(words.values()):
      other.append(name)
      continue
    for split, (word, *_) in ((s, w) for s, w in words.items() if w):
      by_word.setdefault((split, word), []).append(name)
  for (split, word), names in by_word.items():
    candidates[split] += _shard_groups(found.folder, word, names)
  for split, words_of_split in SPLIT_WORDS.items():
    for name in folder_names(entries):
      if name.lower() in words_of_split:
        candidates[split] += _look_inside(found, split, name)
  _ignore_others(found, other)
  return candidates


def _look_inside(found: FoundData, split: Split, name: str) -> list[FoundSplit]:
  """List what a split's own folder may be read as."""
  folder, word = found.folder / name, name.lower()
  entries = list_folder(folder)
  files = file_names(entries)
  shards = [file for file in files if shard_kind(file)]
  _ignore_others(
    found,
    (
      name
      for name in files
      if not shard_kind(name) and not name.lower().endswith(IMAGE_SUFFIXES)
    ),
  )
  return _shard_groups(folder, word, shards) + find_files(found, folder, word)


def find_files(found: FoundData, folder: Path, word: str) -> list[FoundSplit]:
  """List class folders, or images outside of class folders."""
  entries = list_folder(folder)
  files, folders = file_names(entries), folder_names(entries)
  images = [file for file in files if file.lower().endswith(IMAGE_SUFFIXES)]
  labels = find_label_file(folder, files, word)
  if (labels and (images or folders)) or (images and not folders):
    return [FoundSplit("labelled", word, folder, labels=labels)]
  if folders:
    found.ignore(images, f"outside of the class folders in {folder.name}/")
    return [FoundSplit("folders", word, folder)]
  return []


def _shard_groups(
  folder: Path, word: str, names: Sequence[str]
) -> list[FoundSplit]:
  by_kind: dict[ShardKind, list[str]] = {}
  for name in names:
    if kind := shard_kind(name):
      by_kind.setdefault(kind, []).append(name)
  return [
    FoundSplit(kind, word, folder, group) for kind, group in by_kind.items()
  ]


def _ignore_others(found: FoundData, names: Iterable[str]) -> None:
  """Note the files that are not looked at further, each with the reason."""
  for name in names:
    if shard_kind(name):
      found.ignore([name], "no split in its name")
    elif name.lower().endswith(_ARCHIVES):
      found.ignore([name], "a packed archive")
    elif name.lower().endswith(".arrow"):
      found.ignore([name], "Arrow files are not read, Parquet files are")
    elif name not in DESCRIPTIONS and not is_label_file(name):
      found.ignore([name], OTHER_FILES)
