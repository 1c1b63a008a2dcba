"""Local and remote paths of data sets."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, cast

from ...errors import UsageError, one_line

SYSTEM_FOLDERS = {"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN"}
"""Folders that operating systems create; they are no classes."""


class Entry(NamedTuple):
  """An entry of a folder.

  Attributes:
    name: Last part of the path.
    is_dir: True for a folder.
  """

  name: str
  is_dir: bool


def as_path(text: str | Path) -> Path:
  """Convert a user's text to the path of a data set.

  Args:
    text: Local path, or a URL such as "gs://bucket/folder" with a protocol of
      fsspec; a path object is returned unchanged.

  Returns:
    A `pathlib.Path`; for a URL a `upath.UPath`, which has the same methods for
    reading.

  Raises:
    UsageError: The packages that read the URL are not installed.

  >>> as_path("images/train").name
  'train'
  """
  if not isinstance(text, str):
    return text
  if "://" not in text:
    return Path(text)
  protocol = text.partition("://")[0]
  if protocol in ("file", "local"):
    return Path(text.partition("://")[2])
  try:
    import fsspec
    from upath import UPath
  except ImportError:
    raise UsageError(
      f"{text}: reading {protocol}:// needs pip install 'podscale[remote]'; or "
      "mount the bucket and give its folder"
    ) from None
  try:
    fsspec.get_filesystem_class(protocol)
  except ValueError:
    raise UsageError(
      f"{text}: fsspec has no protocol {protocol}://; mount the storage and "
      "give its folder"
    ) from None
  except ImportError as error:
    raise UsageError(
      f"{text}: a package that reads {protocol}:// is missing: "
      f"{one_line(error)}; or mount the bucket and give its folder"
    ) from None
  return cast(Path, UPath(text))


def list_folder(folder: Path) -> list[Entry]:
  """List the entries of a folder, sorted by name.

  Raises:
    UsageError: The folder is missing, is a file, or cannot be read.
  """
  try:
    if isinstance(folder, Path):
      with os.scandir(folder) as entries:
        return sorted(Entry(e.name, e.is_dir()) for e in entries)
    return _list_remote(folder)
  except OSError as error:
    reason = error.strerror or "No such file or directory"
    raise UsageError(f"{folder}: {reason}") from None


def visible(entries: Iterable[Entry]) -> list[Entry]:
  """Drop hidden entries and `SYSTEM_FOLDERS`."""
  return [
    entry
    for entry in entries
    if entry.name[0] != "." and entry.name not in SYSTEM_FOLDERS
  ]


def file_names(entries: Iterable[Entry]) -> list[str]:
  """List the names of the visible files."""
  return [entry.name for entry in visible(entries) if not entry.is_dir]


def folder_names(entries: Iterable[Entry]) -> list[str]:
  """List the names of the visible folders."""
  return [entry.name for entry in visible(entries) if entry.is_dir]


def file_kind(name: str) -> str:
  """Return a file's suffix in lower case; its name if it has none.

  >>> file_kind("a.TXT"), file_kind("checksums")
  ('.txt', 'checksums')
  """
  return os.path.splitext(name)[1].lower() or name


def counts_by_kind(others: Counter[str]) -> str:
  """Describe the number of files of each kind.

  >>> counts_by_kind(Counter({".txt": 2, "Thumbs.db": 1}))
  '2 .txt, 1 Thumbs.db'
  """
  return ", ".join(f"{count} {kind}" for kind, count in others.most_common())


def _list_remote(folder: Any) -> list[Entry]:
  try:
    found = folder.fs.ls(folder.path, detail=True)
  except OSError:
    raise
  except Exception as error:  # storage clients have errors of their own
    raise UsageError(f"{folder}: cannot be read: {one_line(error)}") from None
  own = folder.path.strip("/")
  paths = ((e["name"].strip("/"), e["type"] == "directory") for e in found)
  # Object stores may list a folder's own marker among its files.
  return sorted(
    Entry(path.rpartition("/")[2], is_dir)
    for path, is_dir in paths
    if path != own
  )
