"""Shards that a data set holds twice, under two names."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from ....errors import UsageError
from ..readers.sharded import open_shard

_HEAD = 2**16  # bytes


def refuse_duplicates(shards: Sequence[Path]) -> None:
  """Check that no shard is a copy of another.

  The contents are compared only for files of equal size: first the first bytes,
  then, if these are equal, all bytes.

  Raises:
    UsageError: A shard is a copy, or cannot be read.
  """
  groups = [list(shards)]
  for key in (_size, _head, _digest):
    groups = [same for group in groups for same in _alike(group, key)]
  if groups:
    one, other, *_ = groups[0]
    raise UsageError(
      f"{other}: has the same bytes as {one}, so its images would count twice; "
      "remove it, or fetch the shard that its name stands for"
    )


def _alike(
  shards: Iterable[Path], key: Callable[[Path], object]
) -> list[list[Path]]:
  """Group the shards with equal keys; drop groups of one."""
  groups: dict[object, list[Path]] = {}
  for shard in shards:
    groups.setdefault(key(shard), []).append(shard)
  return [group for group in groups.values() if len(group) > 1]


def _size(shard: Path) -> int:
  return shard.stat().st_size


def _head(shard: Path) -> bytes:
  with open_shard(shard) as file:
    return file.read(_HEAD)


def _digest(shard: Path) -> bytes:
  with open_shard(shard) as file:
    return hashlib.file_digest(cast(Any, file), "sha256").digest()
