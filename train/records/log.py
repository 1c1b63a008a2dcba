"""Log of a run while it trains: metrics.jsonl, TensorBoard, the terminal."""

import json
import math
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ..errors import UsageError
from .append_file import AppendFile
from .files import write_atomically
from .metrics_file import METRICS, history, lost_seconds, read_metrics
from .scalars import Scalars


def _plain(value: Any) -> Any:
  """Convert a value for JSON; numbers that are not finite become None."""
  if isinstance(value, Mapping):
    return {key: _plain(item) for key, item in value.items()}
  if hasattr(value, "item"):  # a NumPy or JAX scalar
    value = value.item()
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def _scalars(line: Mapping[str, Any]) -> dict[str, float]:
  """Select the numbers of a record, by their names in TensorBoard."""
  return {
    f"{line['kind']}/{name}": value
    for name, value in line.items()
    if isinstance(value, int | float) and name not in ("step", "time")
  }


class RunLog:
  """Log of a run, which only process 0 writes.

  Every record becomes a line of WORKDIR/metrics.jsonl, written at once. The log
  adds the record's kind ("run", "train", "eval" or "times") and the time in
  seconds since 1970; numbers that are not finite become null. The scalars of
  "train" and "eval" records also go to WORKDIR/tensorboard as KIND/NAME. A
  terminal shows a progress bar; other outputs get a line per record.

  A full disk does not end the run: the log prints a warning, keeps the records
  and writes them once the disk has room.

  Use the log as a context manager, and call `run` first.

  Args:
    workdir: Folder of the run; made if missing.
    total_steps: Number of steps of the whole run.
    resume_step: Steps that the restored checkpoint has done; 0 for a new run.
      The log removes records of later steps, which the run repeats.
    is_main: True in process 0; the log of another process writes nothing.
    console: Console for the log lines; None prints to the terminal.

  Attributes:
    evaluated: Steps that earlier processes have evaluated; process 0 only.

  Raises:
    UsageError: The workdir cannot be written, or its metrics.jsonl holds
      something else than a run's records.
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
      self._file = AppendFile(path)
      self._scalars = Scalars(
        workdir / "tensorboard", purge_step=self._resume_step + 1
      )
    except OSError as e:
      raise UsageError(f"cannot write {e.filename}: {e.strerror}") from e
    self._problem = ""
    self._has_bar = console.is_terminal and not console.is_dumb_terminal
    self._progress = Progress(
      BarColumn(bar_width=None),
      MofNCompleteColumn(),
      TextColumn("{task.description}"),
      console=console,
      expand=True,
      disable=not self._has_bar,
      refresh_per_second=2,  # leaves the processor to the input pipeline
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
      lost = self._file.close()
      if lost:
        self.message(f"{lost} bytes of {METRICS} could not be written")

  def run(self, record: Mapping[str, Any]) -> None:
    """Log the start of this process.

    Args:
      record: Result of `run_record`.
    """
    if self._is_main:
      start = {"step": self._resume_step, "lost_seconds": self._lost}
      self._write("run", start | dict(record))

  def train(self, record: Mapping[str, Any]) -> None:
    """Log the training steps since the last record.

    Args:
      record: Dict of step (steps done), epoch (float), loss, learning_rate,
        images_per_s, data_wait (share of the time that the devices waited for
        data) and any other values to keep.
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
      record: Dict of split (its name), step, epoch (float), examples and
        correct (counts), top1 (correct / examples), loss and any other values
        to keep.
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
    """Log how this process spent its time from its start to a step.

    Args:
      step: Number of steps done.
      seconds: Seconds by activity, from `WallTime.seconds`.
    """
    if self._is_main:
      self._write("times", {"step": step, "seconds": dict(seconds)})

  def message(self, text: str, *, everywhere: bool = False) -> None:
    """Print a line of text, above the progress bar if there is one.

    Args:
      text: Line to print.
      everywhere: True to print in every process, for text that differs.
    """
    if self._is_main or everywhere:
      self._console.print(text, markup=False, highlight=False, soft_wrap=True)
      self._console.file.flush()

  def _write(self, kind: str, record: Mapping[str, Any]) -> None:
    line = {"kind": kind} | _plain(record) | {"time": round(time.time(), 3)}
    text = f"{json.dumps(line, allow_nan=False)}\n"
    problem = self._file.append(text.encode())
    if kind != "run":
      problem = problem or self._scalars.add(line["step"], _scalars(line))
    if problem != self._problem:
      self.message(
        f"the log cannot be written ({problem}); training goes on"
        if problem
        else "the log is written again"
      )
    self._problem = problem

  def _eta(self, step: int) -> timedelta:
    """Estimate the remaining time, evaluations and checkpoints included."""
    since_step, since_time = self._pace_from
    now = time.monotonic()
    pace = (now - since_time) / max(step - since_step, 1)
    if not self._pace_is_warm:
      # The time to the first record includes compilation.
      self._pace_from = (step, now)
      self._pace_is_warm = True
    return timedelta(seconds=round(pace * (self._total_steps - step)))
