"""Names of shards: format, split, number and total."""

import re
from collections.abc import Sequence
from typing import Literal

from ..source import Split

ShardFormat = Literal["array_record", "parquet", "tar", "tfrecord"]

SHARD_PREFIXES: dict[Split, str] = {"train": "train", "test": "validation"}
"""Prefix of the shards of a split that podscale writes."""

SPLIT_FOLDERS: dict[Split, str] = {"train": "train", "test": "val"}
"""Folder of a split that podscale writes."""

SPLIT_ALIASES: dict[Split, tuple[str, ...]] = {
  "train": ("train",),
  "test": ("validation", "val", "valid", "test"),
}
"""Names of a split in folders and shards, the preferred name first."""

_TOTAL = re.compile(r"(\d+)[-_]of[-_](\d+)")
# Hugging Face writes a hash behind the total.
_BARE_TFRECORD = re.compile(r"\d[-_]of[-_]\d+(-[0-9a-f]+)?(\.gz)?$")
_NOT_SHARDS = (
  *(".idx", ".index", ".json", ".txt", ".md"),
  *(".crc", ".sha256", ".md5", ".tmp", ".part"),
)
_TAR = (".tar", ".tar.gz", ".tgz")
_MOST_NAMED = 5


def shard_format(name: str) -> ShardFormat | None:
  """Return the format of a shard by its name; None for other files.

  >>> shard_format("train-00000-of-01024"), shard_format("train-0.tar")
  ('tfrecord', 'tar')
  >>> shard_format("train-00000-of-01024.idx")
  """
  lower = name.lower()
  if lower.startswith(".") or lower.endswith(_NOT_SHARDS):
    return None
  if ".array_record" in lower or ".arrayrecord" in lower:
    return "array_record"
  if lower.endswith(_TAR):
    return "tar"
  if lower.endswith(".parquet"):
    return "parquet"
  if ".tfrec" in lower or _BARE_TFRECORD.search(lower):
    return "tfrecord"
  return None


def split_aliases(name: str, split: Split) -> list[str]:
  """List the names of a split in a file's name, the preferred name first.

  >>> split_aliases("imagenet2012-validation.tfrecord-00000-of-00064", "test")
  ['validation']
  >>> split_aliases("train00-400.tfrec", "train")
  ['train']
  """
  words = re.split(r"[^a-z]+", name.lower())
  return [alias for alias in SPLIT_ALIASES[split] if alias in words]


def series_problem(names: Sequence[str]) -> str | None:
  """Describe why files are not one complete series of shards.

  Args:
    names: File names of one split and format.

  Returns:
    The reason in one line; None if they are one complete series.

  >>> series_problem(["train-00000-of-00002", "train-00001-of-00002"])
  >>> series_problem(["train-00000-of-00002"])
  '1 of 2 shards are missing beside train-00000-of-00002: number 1'
  """
  with_total = [name for name in names if _TOTAL.search(name)]
  if not with_total:
    return _untotalled_problem(names)
  if len(with_total) < len(names):
    other = next(name for name in names if name not in with_total)
    return _two_series(with_total[0], other)
  numbers: dict[int, str] = {}
  totals: dict[int, str] = {}
  for name in names:
    number, total = (int(part) for part in _TOTAL.findall(name)[-1])
    totals.setdefault(total, name)
    if number in numbers and len(totals) == 1:
      return f"number {number} occurs twice: {numbers[number]} and {name}"
    numbers[number] = name
  if len(totals) > 1:
    return _two_series(*list(totals.values())[:2])
  before = {_TOTAL.split(name)[0]: name for name in reversed(names)}
  if len(before) > 1:
    return _two_series(*list(before.values())[::-1][:2])
  (total,) = totals
  first = 1 if 0 not in numbers and total in numbers else 0
  beyond = [numbers[n] for n in numbers if n >= total + first]
  if beyond:
    return f"{beyond[0]} has a number beyond the total in its name"
  return _missing(set(numbers), first, total, names[0])


def _untotalled_problem(names: Sequence[str]) -> str | None:
  """Check names without a total, such as train-000012.tar."""
  shapes = {re.sub(r"\d+", "#", name): name for name in reversed(names)}
  if len(shapes) > 1 and any("#" in shape for shape in shapes):
    return _two_series(*list(shapes.values())[::-1][:2])
  parts = _numbers(names)
  if not parts:
    return None
  numbers = [number for number, *_ in parts]
  if len(set(numbers)) < len(names):
    return _repeated(parts, names)
  # Padded numbers start at 0, as WebDataset's do; train_1 may be the first.
  padded = any(text[0] == "0" and len(text) > 1 for text in numbers)
  found = set(map(int, numbers))
  first = int(0 not in found and not padded)
  return _missing(found, first, max(found) + 1 - first, names[0])


def _numbers(names: Sequence[str]) -> list[tuple[str, ...]]:
  """Extract the numbers of each name, from the first that differs on."""
  if len(names) == 1:
    aliases = "|".join(sum(SPLIT_ALIASES.values(), ()))
    found = re.search(rf"(?:\b|_)(?:{aliases})[-_.]?(\d+)|^(\d+)\.", names[0])
    return [(found[1] or found[2],)] if found else []
  columns = list(zip(*(re.findall(r"\d+", n) for n in names), strict=True))
  while columns and len(set(columns[0])) == 1:
    del columns[0]
  return list(zip(*columns, strict=True))


def _repeated(
  parts: Sequence[tuple[str, ...]], names: Sequence[str]
) -> str | None:
  """Refuse repeated numbers, except in a full grid such as 0-0, 0-1, 1-0, 1-1.

  In some data sets the second number is a writer, in others a count of
  examples.
  """
  seconds: dict[str, set[tuple[str, ...]]] = {}
  for number, *rest in parts:
    seconds.setdefault(number, set()).add(tuple(rest))
  if len(set(map(frozenset, seconds.values()))) == 1:
    return None
  number = next(n for n, rest in seconds.items() if len(rest) > 1)
  same = [
    n for n, (part, *_) in zip(names, parts, strict=True) if part == number
  ]
  return f"number {number} occurs twice: {same[0]} and {same[1]}"


def _missing(
  numbers: set[int], first: int, total: int, name: str
) -> str | None:
  missing = sorted(set(range(first, first + total)) - numbers)
  if not missing:
    return None
  some = ", ".join(map(str, missing[:_MOST_NAMED]))
  more = ", ..." * (len(missing) > _MOST_NAMED)
  return (
    f"{len(missing)} of {total} shards are missing beside {name}: number "
    f"{some}{more}"
  )


def _two_series(one: str, other: str) -> str:
  return (
    f"{one} and {other} belong to two series of shards; keep one, because both "
    "may hold the same images"
  )
