"""Folder of a run: its owner's settings and data, and checks of its links."""

import dataclasses
import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from ... import __version__
from ..errors import UsageError
from ..settings.config import Config
from .files import make_folder, write_atomically
from .lock import LOCK, WorkdirLock
from .metrics_file import METRICS, flat, read_metrics

_CONFIG = "config.json"
# A resumed run may change these settings: they do not affect the weights.
_MAY_DIFFER = {
  "workdir",
  "log_every_steps",
  "keep_checkpoints",
  "checkpoint_every_epochs",
  "eval_every_epochs",
  "eval_batch_size",
  "non_finite",
  "most_rollbacks",
  "distributed",
  "coordinator",
  "num_processes",
  "process_id",
  "cpu_devices",
  "data.augment_on",
  "data.class_names",
  "data.skip_bad",
}
_PATHS = {"data.path", "data.eval_path"}  # `_compare` compares the listings
_MOST_NAMED = 5
# Files and folders of a start that ended before it wrote config.json.
_START_FILES = {LOCK, f"{_CONFIG}.tmp", f"{METRICS}.tmp"}
_START_FOLDERS = {"checkpoints", "tensorboard"}


class SplitIdentity(TypedDict):
  """Identity of a split of a data set, whatever its folder."""

  examples: int
  """Number of images."""
  listing: str
  """Digest of the images' names and order, `Source.listing`."""


class _Recorded(NamedTuple):
  settings: dict[str, Any]
  """Settings by dotted name."""
  data: dict[str, SplitIdentity]
  """Identities by split; empty in the workdirs of earlier versions."""


def claim(
  workdir: str | Path,
  config: Config,
  data: Mapping[str, SplitIdentity],
  lock: WorkdirLock,
) -> list[str]:
  """Claim `workdir` for a run with these settings, new or resumed.

  The first start writes WORKDIR/config.json. Later starts must have the same
  settings, except those that do not change the training: intervals of logging,
  evaluation and saving, number of checkpoints, evaluation batch size, place of
  augmentation, limit of bad images, reaction to a loss that is not finite,
  number of devices, and connection of the processes. The data may have moved or
  been converted, but its listing must be the same.

  Args:
    workdir: Folder of the run; made if missing.
    config: Settings of the run.
    data: Identity of the data, by split.
    lock: Lock of the workdir, which this function takes.

  Returns:
    Lines for the log: a move of the data, a file system without locks.

  Raises:
    UsageError: The workdir cannot be written or is in use by another run; or it
      holds other files, a run with other settings or data, an unreadable log,
      a link out of it or a named pipe. Nothing in it is changed then.
  """
  folder = Path(workdir)
  make_folder(folder)
  _refuse_links_out(folder)
  settings = json.loads(json.dumps(dataclasses.asdict(config)))
  _compare(folder, flat(settings), data)
  problem = lock.take()
  notes = [f"{problem}; no other run may use this workdir"] if problem else []
  # Compare again under the lock, because another run may have been faster.
  recorded, moved = _compare(folder, flat(settings), data)
  if not recorded:
    record = {"podscale": __version__, "settings": settings, "data": data}
    text = json.dumps(record, indent=2) + "\n"
    write_atomically(folder / _CONFIG, text)
  return [*notes, *moved]


def _compare(
  folder: Path, now: Mapping[str, Any], data: Mapping[str, SplitIdentity]
) -> tuple[bool, list[str]]:
  """Compare the folder's settings and data with this run's.

  Returns:
    True if a run has claimed the folder, and a line for each split whose data
    has moved since.

  Raises:
    UsageError: The folder belongs to something else than this run.
  """
  recorded = _recorded(folder)
  if recorded is None:
    return False, []
  there = recorded.settings
  may_differ = _MAY_DIFFER | (_PATHS if recorded.data else set())
  if recorded.data and there.get("data.path") != now.get("data.path"):
    # Converted data stores class numbers; the listing covers the label offset.
    may_differ = may_differ | {"data.label_offset"}
  differing = _differing(there, now, may_differ)
  if differing:
    more = len(differing) - _MOST_NAMED
    if more > 0:
      differing[_MOST_NAMED:] = [f"and {more} more"]
    named = " ".join(", ".join(differing).split())  # a damaged file's names
    raise UsageError(
      f"{folder} holds a run with other settings ({named}); use its settings "
      "to resume it, or choose another --workdir"
    )
  moved = []
  for split, before in recorded.data.items():
    where_before, where_now = _place(there, split), _place(now, split)
    if before != data.get(split):
      raise UsageError(
        f"{folder} holds a run on other {split} images: {_describe(before)} in "
        f"{where_before} then, {_describe(data.get(split))} in {where_now} "
        "now; use its images to resume it, or choose another --workdir"
      )
    if where_before != where_now:
      moved.append(
        f"the {split} images were in {where_before} and are in {where_now} "
        "now: the same images in the same order"
      )
  if (folder / METRICS).exists():
    read_metrics(folder / METRICS)  # raises before anything is compiled
  return True, moved


def _place(settings: Mapping[str, Any], split: str) -> str:
  """Return the folder of a split's images, from the settings of a run."""
  path = settings.get("data.path")
  if split == "test":
    path = settings.get("data.eval_path") or path
  return path or "the package"


def _describe(split: SplitIdentity | None) -> str:
  if split is None:
    return "none"
  return f"{split['examples']:,} (listing {split['listing'][:8]})"


def _recorded(folder: Path) -> _Recorded | None:
  """Read config.json; None if no run has written it yet."""
  try:
    if all(map(_is_from_a_start, folder.iterdir())):
      return None
    record = json.loads((folder / _CONFIG).read_bytes())
    data = {
      split: SplitIdentity(
        examples=int(of["examples"]), listing=str(of["listing"])
      )
      for split, of in record.get("data", {}).items()
    }
    if "podscale" in record and isinstance(record["settings"], dict):
      return _Recorded(flat(record["settings"]), data)
  except (
    *(OSError, ValueError, TypeError, KeyError),
    *(AttributeError, OverflowError, RecursionError),
  ):
    pass  # missing or another program's: the same error
  raise UsageError(
    f"{folder} is not empty and has no {_CONFIG} of podscale; "
    "choose another --workdir"
  )


def _is_from_a_start(path: Path) -> bool:
  if path.is_symlink():
    return False
  if path.name in _START_FOLDERS:
    return path.is_dir() and not any(path.iterdir())
  return path.name in _START_FILES and path.is_file()


def _differing(
  there: Mapping[str, Any], now: Mapping[str, Any], may_differ: set[str]
) -> list[str]:
  absent = "absent"
  return [
    f"{name}: {there.get(name, absent)} there, {now.get(name, absent)} now"
    for name in {**now, **there}
    if name not in may_differ
    and there.get(name, absent) != now.get(name, absent)
  ]


def _refuse_links_out(workdir: Path) -> None:
  """Refuse links out of the workdir, so that a run writes only inside it."""
  inside = Path(os.path.realpath(workdir))
  for folder, folders, files in workdir.walk():
    for path in (folder / name for name in (*folders, *files)):
      if not path.is_symlink():
        _refuse_pipe(path)
        continue
      target = _target(path)
      if not target.is_relative_to(inside):
        raise UsageError(
          f"{path} is a link to {target}, outside the workdir, but a run "
          "writes only inside it; remove the link, or pass its target as "
          "--workdir"
        )


def _refuse_pipe(path: Path) -> None:
  """Refuse a named pipe, on which a run would wait forever."""
  if path.exists() and not (path.is_file() or path.is_dir()):
    raise UsageError(
      f"{path} is neither a file nor a folder; remove it or choose another "
      "--workdir"
    )


def _target(link: Path) -> Path:
  """Resolve a link, even if its target does not exist."""
  try:
    link.stat()
  except OSError as error:
    if error.errno == errno.ELOOP:
      raise UsageError(
        f"{link} is a link that leads back to itself; remove it"
      ) from None
  return Path(os.path.realpath(link))
