"""Choose a split's images among all that may be."""

import os
import re
import tarfile
from collections import Counter
from pathlib import Path

from ....errors import UsageError
from ...source import Split
from ..index import NAME
from ..readers.encoded import IMAGE_SUFFIXES
from ..readers.sharded import open_shard
from ..shard_names import (
  FOLDERS,
  SPLIT_ALIASES,
  SPLIT_NAMES,
  series_problem,
  split_aliases,
)
from .layout import FORMAT_NAMES, DatasetLayout, SplitLayout

_IN_ARCHIVES = ("tar", *(suffix[1:] for suffix in IMAGE_SUFFIXES))
_NO_LABELS = "an archive without labels: unpack it into class folders"


def choose_split(
  found: DatasetLayout, split: Split, candidates: list[SplitLayout]
) -> None:
  """Choose one of a split's candidates; name those that are left out."""
  candidates = _without_archives(found, candidates)
  there = {candidate.word for candidate in candidates}
  words = [word for word in SPLIT_ALIASES[split] if word in there]
  if not words:
    found.problems[split] = _nothing(found, split)
    return
  for candidate in candidates:
    if candidate.word != words[0]:
      found.ignore([_pattern(found.folder, candidate)], f"{words[0]} is used")
  candidates = [c for c in candidates if c.word == words[0]]
  if len(candidates) > 1:
    what = " and ".join(sorted(FORMAT_NAMES[c.kind] for c in candidates))
    found.problems[split] = (
      f"{found.folder}: has {split} images of several kinds: {what}; give a "
      "folder that has one of them"
    )
    return
  (chosen,) = candidates
  problem = _of_other_split(chosen, split) or series_problem(chosen.shards)
  if problem:
    found.problems[split] = f"{chosen.folder}: {problem}"
  else:
    found.splits[split] = chosen


def refuse_shared_files(found: DatasetLayout) -> None:
  """Refuse test images that are training images by a link."""
  if len(found.splits) < 2:
    return
  train, test = found.splits["train"], found.splits["test"]
  known = {_inode(path) for path in _paths(train)} - {None}
  shared = [path for path in _paths(test) if _inode(path) in known]
  if shared:
    del found.splits["test"]
    found.problems["test"] = (
      f"{shared[0]}: is among the training images by a link; to evaluate on "
      f"them on purpose give --data.eval-path {train.folder}"
    )


def _paths(split: SplitLayout) -> list[Path]:
  """List the shards of a split, or its folder."""
  return [split.folder / name for name in split.shards] or [split.folder]


def _inode(path: Path) -> tuple[int, int] | None:
  """Identify a local file or folder, whatever its name."""
  if not isinstance(path, os.PathLike):
    return None
  status = path.stat()
  return status.st_dev, status.st_ino


def _of_other_split(chosen: SplitLayout, split: Split) -> str | None:
  """Say which shard is of the other split by its name."""
  for name in chosen.shards:
    for other in SPLIT_ALIASES:
      words = split_aliases(name, other)
      if other != split and words:
        return (
          f"{name} is taken for {chosen.word} and for {words[0]}; images of "
          "one split must not be in the other, so give it the name of one"
        )
  return None


def _without_archives(
  found: DatasetLayout, candidates: list[SplitLayout]
) -> list[SplitLayout]:
  """Leave out the archives that images were downloaded in."""
  files = [c for c in candidates if c.kind in ("folders", "labelled")]
  kept = []
  for candidate in candidates:
    if candidate.kind != "tar":
      kept.append(candidate)
    elif files:
      reason = f"{FORMAT_NAMES[files[0].kind]} are used"
      found.ignore([_pattern(found.folder, candidate)], reason)
    else:
      plain = _plain_archives(candidate)
      found.ignore(plain, _NO_LABELS)
      rest = [name for name in candidate.shards if name not in plain]
      if rest:
        kept.append(SplitLayout("tar", candidate.word, candidate.folder, rest))
  return kept


def _plain_archives(tars: SplitLayout) -> list[str]:
  """List tars of no series whose first member has no label beside it."""
  shapes = Counter(_shape(name) for name in tars.shards)
  return [
    name
    for name in tars.shards
    if shapes[_shape(name)] == 1 and not _has_labels(tars.folder / name)
  ]


def _shape(name: str) -> str:
  return re.sub(r"\d+", "#", name)


def _has_labels(path: Path) -> bool:
  """Look for a label beside the first image; True where only reading tells."""
  first = None
  try:
    with (
      open_shard(path) as file,
      tarfile.open(fileobj=file, mode="r:") as tar,
    ):
      for member in tar:
        stem, _, suffix = member.name.rpartition("/")[2].partition(".")
        if suffix in ("cls", "json"):
          return True
        if member.isfile() and suffix.lower() in _IN_ARCHIVES:
          if first not in (None, stem):
            return False
          first = stem
  except (UsageError, tarfile.TarError):
    return True
  return first is None


def _pattern(root: Path, split: SplitLayout) -> str:
  """Name the shards or the folder of a split that is left out."""
  folder = "" if split.folder == root else f"{split.folder.name}/"
  if len(split.shards) == 1:
    return f"{folder}{split.shards[0]}"
  if split.shards:
    return f"{folder}{split.shards[0]} and {len(split.shards) - 1} more"
  return folder


def _nothing(found: DatasetLayout, split: Split) -> str:
  name, word = SPLIT_NAMES[split], FOLDERS[split]
  left_out = [text for text in found.left_out() if text.endswith(")")]
  also = f"; left out: {', '.join(left_out)}" if left_out else ""
  if found.folder.name.lower() in sum(SPLIT_ALIASES.values(), ()):
    also += f"; if this is the folder of one split, give {found.folder.parent}"
  return (
    f"{found.folder}: no {split} images in it: neither {NAME}, nor shards such "
    f"as {name}-00000-of-01024 (TFRecord), {name}.array_record-00000-of-00064, "
    f"{name}-000000.tar or {name}-00000-of-00294.parquet, nor "
    f"{word}/CLASS/*.jpg{also}"
  )
