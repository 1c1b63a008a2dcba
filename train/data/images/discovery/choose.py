"""Choice of a split's images among the candidates."""

import os
import re
import tarfile
from collections import Counter
from pathlib import Path

from ....errors import UsageError
from ...source import Split
from ..index import INDEX_FILE
from ..readers.encoded import IMAGE_SUFFIXES
from ..readers.sharded import open_shard
from ..shard_names import (
  SHARD_PREFIXES,
  SPLIT_ALIASES,
  SPLIT_FOLDERS,
  series_problem,
  split_aliases,
)
from .layout import FORMAT_NAMES, DatasetLayout, SplitLayout

_IN_ARCHIVES = ("tar", *(suffix[1:] for suffix in IMAGE_SUFFIXES))
_NO_LABELS = "an archive without labels: unpack it into class folders"


def choose_split(
  layout: DatasetLayout, split: Split, candidates: list[SplitLayout]
) -> None:
  """Choose one of a split's candidates, or record why none can be chosen."""
  candidates = _without_archives(layout, candidates)
  found = {candidate.split_name for candidate in candidates}
  preferred = next(
    (name for name in SPLIT_ALIASES[split] if name in found), None
  )
  if preferred is None:
    layout.problems[split] = _nothing(layout, split)
    return
  for candidate in candidates:
    if candidate.split_name != preferred:
      layout.ignore(
        [_pattern(layout.folder, candidate)], f"{preferred} is used"
      )
  candidates = [c for c in candidates if c.split_name == preferred]
  if len(candidates) > 1:
    formats = " and ".join(sorted(FORMAT_NAMES[c.format] for c in candidates))
    layout.problems[split] = (
      f"{layout.folder}: has {split} images in several formats: {formats}; "
      "give a folder that has one of them"
    )
    return
  (chosen,) = candidates
  problem = _of_other_split(chosen, split) or series_problem(chosen.shards)
  if problem:
    layout.problems[split] = f"{chosen.folder}: {problem}"
  else:
    layout.splits[split] = chosen


def refuse_shared_files(layout: DatasetLayout) -> None:
  """Refuse test images that are links to training images."""
  if len(layout.splits) < 2:
    return
  train, test = layout.splits["train"], layout.splits["test"]
  known = {_inode(path) for path in _paths(train)} - {None}
  shared = [path for path in _paths(test) if _inode(path) in known]
  if shared:
    del layout.splits["test"]
    layout.problems["test"] = (
      f"{shared[0]}: is a link to training images; to evaluate on them on "
      f"purpose give --data.eval-path {train.folder}"
    )


def _paths(split: SplitLayout) -> list[Path]:
  """List the shards of a split; its folder if it has none."""
  return [split.folder / name for name in split.shards] or [split.folder]


def _inode(path: Path) -> tuple[int, int] | None:
  """Identify a local file or folder by device and inode; None if remote."""
  if not isinstance(path, os.PathLike):
    return None
  status = path.stat()
  return status.st_dev, status.st_ino


def _of_other_split(chosen: SplitLayout, split: Split) -> str | None:
  """Describe a shard whose name contains the other split, if there is one."""
  for name in chosen.shards:
    for other in SPLIT_ALIASES:
      found = split_aliases(name, other)
      if other != split and found:
        return (
          f"{name} names two splits, {chosen.split_name} and {found[0]}; "
          "rename it to one of them"
        )
  return None


def _without_archives(
  layout: DatasetLayout, candidates: list[SplitLayout]
) -> list[SplitLayout]:
  """Drop tar archives that only hold the images of a download."""
  files = [c for c in candidates if c.format in ("folders", "labelled")]
  kept = []
  for candidate in candidates:
    if candidate.format != "tar":
      kept.append(candidate)
    elif files:
      reason = f"{FORMAT_NAMES[files[0].format]} are used"
      layout.ignore([_pattern(layout.folder, candidate)], reason)
    else:
      plain = _plain_archives(candidate)
      layout.ignore(plain, _NO_LABELS)
      rest = [name for name in candidate.shards if name not in plain]
      if rest:
        kept.append(
          SplitLayout("tar", candidate.split_name, candidate.folder, rest)
        )
  return kept


def _plain_archives(tars: SplitLayout) -> list[str]:
  """List tars outside any series whose first image has no label beside it."""
  shapes = Counter(_shape(name) for name in tars.shards)
  return [
    name
    for name in tars.shards
    if shapes[_shape(name)] == 1 and not _has_labels(tars.folder / name)
  ]


def _shape(name: str) -> str:
  return re.sub(r"\d+", "#", name)


def _has_labels(path: Path) -> bool:
  """Look for a label beside the first image; True if the reader must decide."""
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
  """Describe the shards or the folder of a split."""
  folder = "" if split.folder == root else f"{split.folder.name}/"
  if len(split.shards) == 1:
    return f"{folder}{split.shards[0]}"
  if split.shards:
    return f"{folder}{split.shards[0]} and {len(split.shards) - 1} more"
  return folder


def _nothing(layout: DatasetLayout, split: Split) -> str:
  name, folder = SHARD_PREFIXES[split], SPLIT_FOLDERS[split]
  left_out = [text for text in layout.left_out() if text.endswith(")")]
  also = f"; left out: {', '.join(left_out)}" if left_out else ""
  if layout.folder.name.lower() in sum(SPLIT_ALIASES.values(), ()):
    also += f"; if this is the folder of one split, give {layout.folder.parent}"
  return (
    f"{layout.folder}: no {split} images in it: neither {INDEX_FILE}, nor "
    f"shards such as {name}-00000-of-01024 (TFRecord), "
    f"{name}.array_record-00000-of-00064, {name}-000000.tar or "
    f"{name}-00000-of-00294.parquet, nor {folder}/CLASS/*.jpg{also}"
  )
