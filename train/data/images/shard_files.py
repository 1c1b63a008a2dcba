"""Which files of a folder are the shards of a split."""

import re
from pathlib import Path
from typing import Literal, NamedTuple

from ...errors import UsageError
from ..source import Split

Kind = Literal["array_record", "tar", "tfrecord"]

SPLIT_NAMES: dict[Split, str] = {"train": "train", "test": "validation"}
"""What the shards of a split are called where podscale writes them."""

_SPLIT_WORDS: dict[Split, tuple[str, ...]] = {
  "train": ("train",),
  "test": ("validation", "val", "test"),
}
_OF = re.compile(r"-(\d+)-of-(\d+)(?=\D*$)")
_LAST_NUMBER = re.compile(r"(\d+)(?=\D*$)")


class ShardFiles(NamedTuple):
  """The shards of a split, in order."""

  kind: Kind
  paths: list[Path]


def find_shards(folder: Path, split: Split) -> ShardFiles | None:
  """The shards of a split by their names; None where there is none.

  TFRecord files are called as imagenet_to_gcs does, train-00000-of-01024 and
  validation-00000-of-00128, or have .tfrecord in their names; ArrayRecord files
  have .array_record in theirs; tar shards end in .tar.

  Raises:
    UsageError: the folder cannot be read, a shard is missing, or there are
      shards of several kinds.
  """
  try:
    files = sorted(path for path in folder.iterdir() if path.is_file())
  except OSError as error:
    raise UsageError(f"{folder}: {error.strerror}") from None
  by_kind: dict[Kind, list[Path]] = {}
  for path in files:
    kind = _kind(path.name)
    if kind and _is_of(path.name, split):
      by_kind.setdefault(kind, []).append(path)
  if len(by_kind) > 1:
    kinds = " and ".join(sorted(by_kind))
    raise UsageError(f"{folder}: has {split} shards of several kinds: {kinds}")
  for kind, paths in by_kind.items():
    _check_complete(paths)
    return ShardFiles(kind, paths)
  return None


def _kind(name: str) -> Kind | None:
  if name.startswith(".") or name.endswith((".tmp", ".json")):
    return None
  if ".array_record" in name:
    return "array_record"
  if name.endswith(".tar"):
    return "tar"
  if ".tfrecord" in name or _OF.search(name):
    return "tfrecord"
  return None


def _is_of(name: str, split: Split) -> bool:
  words = re.split(r"[^a-z]+", name.lower())
  return any(word in words for word in _SPLIT_WORDS[split])


def _check_complete(paths: list[Path]) -> None:
  """Against the -of-N in the names, or the numbers before and after."""
  of = [match for path in paths if (match := _OF.search(path.name))]
  if len(of) == len(paths):
    numbers = {int(match[1]) for match in of}
    wanted = set(range(int(of[0][2])))
  else:
    found = [_LAST_NUMBER.search(path.stem) for path in paths]
    numbers = {int(match[1]) for match in found if match}
    wanted = set(range(max(numbers, default=-1) + 1))
  missing = sorted(wanted - numbers)
  if missing:
    some = ", ".join(map(str, missing[:5])) + ", ..." * (len(missing) > 5)
    raise UsageError(
      f"{paths[0].parent}: {len(missing)} of {len(wanted)} shards are missing "
      f"beside {paths[0].name}: number {some}"
    )
