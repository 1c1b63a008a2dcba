"""What a run writes while it goes: metrics.jsonl, TensorBoard, the terminal."""

import contextlib
import dataclasses
import errno
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ..errors import UsageError
from ..settings.config import Config
from .append_file import Lines
from .record import parse_record
from .scalars import Scalars

METRICS = "metrics.jsonl"


def make_folder(path: Path) -> None:
  """Make `path` and the folders above it; UsageError where that fails."""
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as e:
    reason = _obstacle(path) or e.strerror
    raise UsageError(f"cannot make the folder {path}: {reason}") from e


def _obstacle(path: Path) -> str:
  """Say what stands where a folder should be; "" if it is nothing like that."""
  for place in (*reversed(path.parents), path):
    if os.path.isdir(place) or not os.path.lexists(place):
      continue
    if not os.path.islink(place):
      return f"{place} is a file"
    link = f"{place} is a link to {os.readlink(place)}"
    try:
      os.stat(place)
    except OSError as e:
      if e.errno == errno.ELOOP:
        return f"{link}, which leads back to itself"
      return f"{link}, where nothing is"
    return f"{link}, a file"
  return ""


def write_atomically(path: Path, content: str | bytes) -> None:
  """Replace the file at `path`: afterwards it is the old one or the new one.

  Args:
    path: The file; folders above it are made.
    content: Bytes, or text, which is written in UTF-8.

  Raises:
    UsageError: If it cannot be written.
  """
  make_folder(path.parent)
  data = content.encode() if isinstance(content, str) else content
  beside = path.with_name(path.name + ".tmp")
  try:
    with beside.open("wb") as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    beside.replace(path)
  except OSError as e:
    with contextlib.suppress(OSError):
      beside.unlink()
    raise UsageError(f"cannot write {path}: {e.strerror}") from e


def read_metrics(path: Path) -> list[dict[str, Any]]:
  """The records of a metrics.jsonl, one dict per line, in order.

  A last line that was cut short, as a killed process leaves it, is left out.

  Raises:
    UsageError: If the file cannot be read, or another line is not a record
      that a run has written.
  """
  try:
    *lines, tail = path.read_bytes().split(b"\n")
  except OSError as e:
    raise UsageError(f"cannot read {path}: {e.strerror}") from e
  if _is_json(tail):
    lines.append(tail)
  records = []
  for number, line in enumerate(lines, start=1):
    try:
      records.append(parse_record(line))
    except ValueError as error:
      raise UsageError(
        f"line {number} of {path} is not a record of a run ({error}); "
        "mend it or move the file away"
      ) from None
  return records


def _is_json(text: bytes) -> bool:
  try:
    json.loads(text)
  except ValueError:
    return False
  except RecursionError:
    pass  # whatever it is, it is not the beginning of a record
  return True


def history(records: list[dict[str, Any]], step: int) -> list[dict[str, Any]]:
  """The records that still hold for a run that goes on after `step`.

  What a process logged after its last checkpoint is done again, so it goes,
  and with it the "run" line of a process that never got beyond `step`.

  >>> history([{"kind": "run", "step": 0}, {"kind": "train", "step": 10}], 0)
  []
  >>> history([{"kind": "run", "step": 0}, {"kind": "train", "step": 10}], 10)
  [{'kind': 'run', 'step': 0}, {'kind': 'train', 'step': 10}]
  """
  return [
    record
    for record in records
    if record["step"] + (record["kind"] == "run") <= step
  ]


def lost_seconds(records: list[dict[str, Any]], step: int) -> float:
  """Time in the records that a run which goes on after `step` does again.

  >>> done = {"kind": "train", "step": 10, "time": 50.0}
  >>> lost = {"kind": "train", "step": 20, "time": 80.0}
  >>> lost_seconds([done, lost], 10), lost_seconds([done], 10)
  (30.0, 0.0)
  """
  kept = history(records, step)
  # Of a process that got to no checkpoint all counts, from its start on.
  begin = kept[-1] if kept else records[0] if records else {"time": 0.0}
  return (records[-1]["time"] if records else 0.0) - begin["time"]


def run_record(config: Config) -> dict[str, Any]:
  """What one must know to repeat a run: settings, versions, devices, code.

  Returns:
    preset, settings (all of them, nested), versions, device_kind,
    device_count and process_count (of all processes), and git_revision: the
    commit of a checkout, "-dirty" after it where files differ from it, or None.
  """
  import jax

  packages = ("podscale", "jax", "jaxlib", "flax", "optax", "numpy")
  versions = {name: _version(name) for name in packages}
  return {
    "preset": config.preset,
    "settings": dataclasses.asdict(config),
    "versions": versions | {"python": platform.python_version()},
    "device_kind": jax.devices()[0].device_kind,
    "device_count": jax.device_count(),
    "process_count": jax.process_count(),
    "git_revision": git_revision(Path(__file__).resolve().parent),
  }


def _version(package: str) -> str:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:  # run from its sources
    return "not installed"


def git_revision(folder: Path) -> str | None:
  """The commit that `folder` is checked out from; None where there is none."""

  def git(*args: str) -> str:
    # Without optional locks: never in the way of a git the user runs.
    command = ["git", "--no-optional-locks", "-C", str(folder), *args]
    return subprocess.run(
      command, capture_output=True, text=True, check=True, timeout=30
    ).stdout.strip()

  try:
    # A package installed somewhere below another project's checkout is not
    # part of that project: git must know the files in this very folder.
    if not git("ls-files", "--", "."):
      return None
    return git("describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")
  except (OSError, subprocess.SubprocessError):
    return None


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """The leaves of nested settings by their dotted names.

  >>> flat({"seed": 0, "model": {"name": "b0"}})
  {'seed': 0, 'model.name': 'b0'}
  """
  leaves: dict[str, Any] = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      leaves |= flat(value, f"{prefix}{name}.")
    else:
      leaves[prefix + name] = value
  return leaves


def _plain(value: Any) -> Any:
  """`value` as JSON has it; what is not a finite number becomes None."""
  if isinstance(value, Mapping):
    return {key: _plain(item) for key, item in value.items()}
  if hasattr(value, "item"):  # a NumPy or JAX scalar
    value = value.item()
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def _scalars(line: Mapping[str, Any]) -> dict[str, float]:
  """The numbers of a record, by the names that TensorBoard has for them."""
  return {
    f"{line['kind']}/{name}": value
    for name, value in line.items()
    if isinstance(value, int | float) and name not in ("step", "time")
  }


class RunLog:
  """Writes what happens in a run, from process 0 only.

  Every record becomes a line of WORKDIR/metrics.jsonl, written at once, with
  its kind ("run", "train", "eval" or "times") and the time (seconds since 1970)
  added; numbers that are not finite become null. The scalars of "train" and
  "eval" records also go to WORKDIR/tensorboard as KIND/NAME. In a terminal a
  bar shows how far the run is, elsewhere each record prints a line.

  A full disk does not end the run: it is said, and what is to be written waits
  until there is room.

  Use it as a context manager, and call `run` first.

  Args:
    workdir: Folder of the run; made if it is not there.
    total_steps: Number of steps of the whole run.
    resume_step: Steps that the restored checkpoint has done; 0 for a new run.
      Older records of later steps are removed: those steps are done again.
    is_main: Whether this is process 0; the log of another does nothing.
    console: Where to print.

  Attributes:
    evaluated: The steps that earlier processes have evaluated, in process 0.

  Raises:
    UsageError: If the workdir cannot be written, or its metrics.jsonl is not
      one of ours.
  """

  def __init__(
    self,
    workdir: str | Path,
    *,
    total_steps: int,
    resume_step: int = 0,
    is_main: bool = True,
    console: Console | None = None,
  ):
    self._total_steps = total_steps
    self._resume_step = resume_step
    self._is_main = is_main
    self.evaluated: list[int] = []
    self._pace_from = (resume_step, time.monotonic())
    self._pace_is_warm = False
    self._console = console or Console()
    if is_main:
      self._open(Path(workdir), self._console)

  def _open(self, workdir: Path, console: Console) -> None:
    path = workdir / METRICS
    records = read_metrics(path) if path.exists() else []
    kept = history(records, self._resume_step)
    self.evaluated = [r["step"] for r in kept if r["kind"] == "eval"]
    self._lost = lost_seconds(records, self._resume_step)
    write_atomically(path, "".join(json.dumps(r) + "\n" for r in kept))
    try:
      self._lines = Lines(path)
      self._scalars = Scalars(
        workdir / "tensorboard", purge_step=self._resume_step + 1
      )
    except OSError as e:
      raise UsageError(f"cannot write {e.filename}: {e.strerror}") from e
    self._trouble = ""
    self._has_bar = console.is_terminal and not console.is_dumb_terminal
    self._progress = Progress(
      BarColumn(bar_width=None),
      MofNCompleteColumn(),
      TextColumn("{task.description}"),
      console=console,
      expand=True,
      disable=not self._has_bar,
      refresh_per_second=2,  # the processor has other work
    )
    self._bar = self._progress.add_task(
      "", total=self._total_steps, completed=self._resume_step
    )

  def __enter__(self) -> Self:
    if self._is_main:
      self._progress.start()
    return self

  def __exit__(self, *exception: object) -> None:
    if self._is_main:
      self._progress.stop()
      self._scalars.close()
      lost = self._lines.close()
      if lost:
        self.message(f"{lost} bytes of {METRICS} could not be written")

  def run(self, record: Mapping[str, Any]) -> None:
    """Log the start of this process; `record` is that of `run_record`."""
    if self._is_main:
      start = {"step": self._resume_step, "lost_seconds": self._lost}
      self._write("run", start | dict(record))

  def train(self, record: Mapping[str, Any]) -> None:
    """Log training so far.

    Args:
      record: step (steps done), epoch (float), loss, learning_rate,
        images_per_s, data_wait (share of the time in which the devices waited
        for data), and whatever else is to be kept.
    """
    if not self._is_main:
      return
    self._write("train", record)
    line = (
      f"epoch {record['epoch']:.1f}  loss {record['loss']:.3f}  "
      f"lr {record['learning_rate']:.3g}  "
      f"{record['images_per_s']:,.0f} img/s  eta {self._eta(record['step'])}"
    )
    self._progress.update(
      self._bar, completed=record["step"], description=line, refresh=True
    )
    if not self._has_bar:
      self.message(
        f"step {record['step']}/{self._total_steps}  {line}  "
        f"data wait {record['data_wait']:.0%}"
      )

  def eval(self, record: Mapping[str, Any]) -> None:
    """Log an evaluation.

    Args:
      record: split (its name), step, epoch (float), examples and correct
        (counts), top1 (correct / examples), loss, and whatever else.
    """
    if not self._is_main:
      return
    self._write("eval", record)
    self.message(
      f"step {record['step']}/{self._total_steps}  "
      f"epoch {record['epoch']:.1f}  {record['split']} top-1 "
      f"{record['top1']:.2%} ({record['correct']:,} of "
      f"{record['examples']:,})  loss {record['loss']:.3f}"
    )

  def times(self, step: int, seconds: Mapping[str, float]) -> None:
    """Log where the time of this process went, from its start to this step."""
    if self._is_main:
      self._write("times", {"step": step, "seconds": dict(seconds)})

  def message(self, text: str, *, everywhere: bool = False) -> None:
    """Print a line of text, above the bar where there is one.

    Args:
      text: What is said.
      everywhere: Whether all processes say it, as each knows something else.
    """
    if self._is_main or everywhere:
      self._console.print(text, markup=False, highlight=False, soft_wrap=True)
      self._console.file.flush()

  def _write(self, kind: str, record: Mapping[str, Any]) -> None:
    line = {"kind": kind} | _plain(record) | {"time": round(time.time(), 3)}
    trouble = self._lines.add(f"{json.dumps(line, allow_nan=False)}\n".encode())
    if kind != "run":
      trouble = trouble or self._scalars.add(line["step"], _scalars(line))
    if trouble != self._trouble:
      self.message(
        f"the log cannot be written ({trouble}); training goes on"
        if trouble
        else "the log is written again"
      )
    self._trouble = trouble

  def _eta(self, step: int) -> timedelta:
    """Time to go at the pace so far, evaluations and checkpoints included."""
    since_step, since_time = self._pace_from
    now = time.monotonic()
    pace = (now - since_time) / max(step - since_step, 1)
    if not self._pace_is_warm:
      # The first record's time holds compilation; count from there on.
      self._pace_from = (step, now)
      self._pace_is_warm = True
    return timedelta(seconds=round(pace * (self._total_steps - step)))
