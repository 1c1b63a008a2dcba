"""A run's folder: whose it is, and that nothing in it leads out of it."""

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
from .lock import LOCK, WorkdirLock
from .log import (
  METRICS,
  flat,
  make_folder,
  read_metrics,
  write_atomically,
)

_CONFIG = "config.json"
# Another value of these trains the same weights, so a run may go on with it.
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
_PATHS = {"data.path", "data.eval_path"}  # the listings are compared instead
_MOST_NAMED = 5
# What a start leaves that was killed, or had no room, before its config.json.
_FILES_OF_A_START = {LOCK, f"{_CONFIG}.tmp", f"{METRICS}.tmp"}
_FOLDERS_OF_A_START = {"checkpoints", "tensorboard"}


class SplitIdentity(TypedDict):
  """What a split of a data set is known by, wherever it is."""

  examples: int
  listing: str
  """`Source.listing`."""


class _Recorded(NamedTuple):
  settings: dict[str, Any]
  """By their dotted names."""
  data: dict[str, SplitIdentity]
  """By split; empty in the workdirs of earlier versions."""


def claim(
  workdir: str | Path,
  config: Config,
  data: Mapping[str, SplitIdentity],
  lock: WorkdirLock,
) -> list[str]:
  """Take `workdir` for a run with these settings, new or resumed.

  The first start writes WORKDIR/config.json. Later ones must have the same
  settings, but for those that do not change the training: how often to log,
  evaluate and save, how many checkpoints to keep, the evaluation's batch, where
  images are augmented, how many bad ones are left out, what is done where a
  loss is not finite, on how many devices, how processes find each other. The
  data may have moved, or may have been converted: its listing must be the same.

  Args:
    workdir: The folder; made if it is not there.
    config: The settings.
    data: What the run's data is, by split.
    lock: The workdir's, which is taken.

  Returns:
    Lines for the log: that the data has moved, that there are no locks.

  Raises:
    UsageError: If the workdir cannot be written, holds something else, a run
      with other settings, on other data or with a log that cannot be read, a
      link that leads out of it or a named pipe, or if another run is at work
      in it. Nothing in it is changed then.
  """
  folder = Path(workdir)
  make_folder(folder)
  _refuse_links_out(folder)
  settings = json.loads(json.dumps(dataclasses.asdict(config)))
  _compare(folder, flat(settings), data)
  trouble = lock.take()
  notes = [f"{trouble}; make sure that no other run has it"] if trouble else []
  # Again, for another run may have been faster; from here on none can be.
  recorded, moved = _compare(folder, flat(settings), data)
  if not recorded:
    record = {"podscale": __version__, "settings": settings, "data": data}
    text = json.dumps(record, indent=2) + "\n"
    write_atomically(folder / _CONFIG, text)
  return [*notes, *moved]


def _compare(
  folder: Path, now: Mapping[str, Any], data: Mapping[str, SplitIdentity]
) -> tuple[bool, list[str]]:
  """Refuse a folder that is not this run's.

  Returns:
    Whether a run has claimed it, and a line for each split of its data that
    has moved since.
  """
  recorded = _recorded(folder)
  if recorded is None:
    return False, []
  there = recorded.settings
  may_differ = _MAY_DIFFER | (_PATHS if recorded.data else set())
  if recorded.data and there.get("data.path") != now.get("data.path"):
    # Converted data has its classes; a listing knows where labels began.
    may_differ = may_differ | {"data.label_offset"}
  differing = _differing(there, now, may_differ)
  if differing:
    more = len(differing) - _MOST_NAMED
    if more > 0:
      differing[_MOST_NAMED:] = [f"and {more} more"]
    named = " ".join(", ".join(differing).split())  # they may be damaged
    raise UsageError(
      f"{folder} holds a run with other settings ({named}); resume it with its "
      "own, or choose another --workdir"
    )
  moved = []
  for split, before in recorded.data.items():
    where_before, where_now = _place(there, split), _place(now, split)
    if before != data.get(split):
      raise UsageError(
        f"{folder} holds a run on other {split} images: {_describe(before)} in "
        f"{where_before} then, {_describe(data.get(split))} in {where_now} "
        "now; resume it with its own, or choose another --workdir"
      )
    if where_before != where_now:
      moved.append(
        f"the {split} images were in {where_before} and are in {where_now} "
        "now: the same ones in the same order"
      )
  if (folder / METRICS).exists():
    read_metrics(folder / METRICS)  # refused before anything is compiled
  return True, moved


def _place(settings: Mapping[str, Any], split: str) -> str:
  """Name the folder of a split's images, by the settings of a run."""
  path = settings.get("data.path")
  if split == "test":
    path = settings.get("data.eval_path") or path
  return path or "the package"


def _describe(split: SplitIdentity | None) -> str:
  if split is None:
    return "none"
  return f"{split['examples']:,} (listing {split['listing'][:8]})"


def _recorded(folder: Path) -> _Recorded | None:
  """Read what config.json records; None where a run has yet to write it."""
  try:
    if all(map(_is_of_a_start, folder.iterdir())):
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
    pass  # not there or not ours: the same refusal
  raise UsageError(
    f"{folder} is not empty and has no {_CONFIG} of podscale's; "
    "choose another --workdir"
  )


def _is_of_a_start(path: Path) -> bool:
  if path.is_symlink():
    return False
  if path.name in _FOLDERS_OF_A_START:
    return path.is_dir() and not any(path.iterdir())
  return path.name in _FILES_OF_A_START and path.is_file()


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
  """A workdir may be somebody else's: what is written there stays there."""
  inside = Path(os.path.realpath(workdir))
  for folder, folders, files in workdir.walk():
    for path in (folder / name for name in (*folders, *files)):
      if not path.is_symlink():
        _refuse_pipe(path)
        continue
      target = _target(path)
      if not target.is_relative_to(inside):
        raise UsageError(
          f"{path} is a link to {target}, outside the workdir, and a run "
          "writes inside it only; remove the link, or make --workdir the "
          "folder that it leads to"
        )


def _refuse_pipe(path: Path) -> None:
  """A run that opens a named pipe waits for its other end for ever."""
  if path.exists() and not (path.is_file() or path.is_dir()):
    raise UsageError(
      f"{path} is neither a file nor a folder; remove it or choose another "
      "--workdir"
    )


def _target(link: Path) -> Path:
  """Find where a link leads, whether or not something is there."""
  try:
    link.stat()
  except OSError as error:
    if error.errno == errno.ELOOP:
      raise UsageError(
        f"{link} is a link that leads back to itself; remove it"
      ) from None
  return Path(os.path.realpath(link))
