"""A run's folder: whose it is, and that nothing in it leads out of it."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from .config import Config
from .errors import UsageError
from .log import flat, make_folder, write_atomically

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
  "data.skip_bad",
}
_MOST_NAMED = 5


def check_settings(workdir: str | Path, config: Config) -> None:
  """Claim `workdir` for a run with these settings, or agree to resume there.

  The first start writes WORKDIR/config.json. Later ones must have the same
  settings, but for those that do not change the training: how often to log,
  evaluate and save, how many checkpoints to keep, the evaluation's batch, where
  images are augmented, how many bad ones are left out, what is done where a
  loss is not finite, on how many devices, how processes find each other.

  Raises:
    UsageError: If the workdir cannot be written, holds something else, holds a
      run with other settings, or a link that leads out of it. Nothing in it is
      changed then.
  """
  path = Path(workdir) / "config.json"
  make_folder(path.parent)
  _refuse_links_out(path.parent)
  now = json.loads(json.dumps(dataclasses.asdict(config)))
  there = _recorded_settings(path)
  if there is None:
    record = {"podscale": __version__, "settings": now}
    write_atomically(path, json.dumps(record, indent=2) + "\n")
    return
  differing = _differing(flat(there), flat(now))
  if differing:
    more = len(differing) - _MOST_NAMED
    if more > 0:
      differing[_MOST_NAMED:] = [f"and {more} more"]
    raise UsageError(
      f"{workdir} holds a run with other settings ({', '.join(differing)}); "
      "resume it with its own, or choose another --workdir"
    )


def _recorded_settings(path: Path) -> dict[str, Any] | None:
  """The settings in config.json; None where the folder is still empty."""
  try:
    if not any(path.parent.iterdir()):
      return None
    record = json.loads(path.read_bytes())
    if "podscale" in record and isinstance(record["settings"], dict):
      return record["settings"]
  except (OSError, ValueError, TypeError, KeyError, RecursionError):
    pass  # not there or not ours: the same refusal
  raise UsageError(
    f"{path.parent} is not empty and has no config.json of podscale's; "
    "choose another --workdir"
  )


def _differing(there: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
  absent = "absent"
  return [
    f"{name}: {there.get(name, absent)} there, {now.get(name, absent)} now"
    for name in {**now, **there}
    if name not in _MAY_DIFFER
    and there.get(name, absent) != now.get(name, absent)
  ]


def _refuse_links_out(workdir: Path) -> None:
  """A workdir may be somebody else's: what is written there stays there."""
  inside = workdir.resolve()
  for folder, folders, files in workdir.walk():
    for path in (folder / name for name in (*folders, *files)):
      target = path.resolve()
      if path.is_symlink() and not target.is_relative_to(inside):
        raise UsageError(
          f"{path} is a link to {target}, outside the workdir, and a run "
          "writes inside it only; remove the link, or make --workdir the "
          "folder that it leads to"
        )
