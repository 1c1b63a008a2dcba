"""Start of a run: its workdir, its checkpoint and its log."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console

from .assembly import Assembly
from .data import Source, TrainBatches, describe
from .errors import printable
from .processes.distributed import on_main, same_on_all
from .records.checkpoint import Checkpoints
from .records.lock import WorkdirLock
from .records.log import RunLog
from .records.run_record import run_record
from .records.workdir import SplitIdentity, claim
from .settings.config import Config
from .setup import Run
from .state import TrainState


class Start(NamedTuple):
  """State that a run starts from.

  Attributes:
    state: Training state.
    step: Number of steps done.
    data_state: Position of the input; None for a new run.
    notes: Lines for the log about damaged checkpoints.
  """

  state: TrainState
  step: int
  data_state: dict[str, Any] | None
  notes: list[str]


def restore(
  checkpoints: Checkpoints,
  assembly: Assembly,
  batches: TrainBatches,
  run: Run,
) -> Start:
  """Restore the latest checkpoint, or start a new run without one.

  Args:
    checkpoints: Checkpoints of the run.
    assembly: Computation of the run.
    batches: Training batches, which check their saved position.
    run: Data and devices of the run.

  Raises:
    UsageError: The checkpoint belongs to another model or a longer run.
    DamagedError: Every checkpoint is damaged.
  """
  shapes = assembly.abstract_state()
  restored = checkpoints.restore_latest(
    assembly.sharding.unpacked_shapes(shapes),
    last_step=run.total_steps,
    check_data=batches.check,
  )
  if restored is None:
    return Start(assembly.init_state(), 0, None, [])
  state = assembly.sharding.pack(restored.state, like=shapes)
  notes = [
    f"{damage}; it is renamed, and the run resumes from an older checkpoint"
    for damage in restored.damaged
  ]
  return Start(state, restored.step, restored.data_state, notes)


def claim_workdir(
  config: Config, run: Run, workdir: Path, lock: WorkdirLock
) -> list[str]:
  """Claim the workdir in process 0; return lines for the log.

  Args:
    config: Settings of the run.
    run: Data and devices of the run.
    workdir: Folder of the run.
    lock: Lock of the workdir.

  Raises:
    UsageError: The workdir cannot be used, or the processes have different
      images.
  """
  data = {
    "train": _identity(run.train_source),
    "test": _identity(run.test_source),
  }
  notes: list[str] = []
  on_main(lambda: notes.extend(claim(workdir, config, data, lock)))
  same_on_all("images", json.dumps(data))
  return notes


def _identity(source: Source) -> SplitIdentity:
  return {"examples": len(source), "listing": source.listing}


def open_log(workdir: Path, run: Run, step: int, console: Console) -> RunLog:
  """Open the log of this process.

  Args:
    workdir: Folder of the run.
    run: Data and devices of the run.
    step: Number of steps that the restored checkpoint has done.
    console: Console for the log lines.

  Raises:
    UsageError: Process 0 cannot write the log; every process raises it.
  """

  def opened(is_main: bool) -> RunLog:
    return RunLog(
      workdir,
      total_steps=run.total_steps,
      resume_step=step,
      is_main=is_main,
      console=console,
    )

  logs: list[RunLog] = []
  on_main(lambda: logs.append(opened(is_main=True)))
  return logs[0] if logs else opened(is_main=False)


def log_start(
  log: RunLog,
  config: Config,
  run: Run,
  workdir: Path,
  step: int,
  notes: list[str],
) -> None:
  """Log the settings, the notes, the devices and the data.

  Args:
    log: Log of the run.
    config: Settings of the run.
    run: Data and devices of the run.
    workdir: Folder of the run.
    step: Number of steps that the restored checkpoint has done.
    notes: Lines about the workdir and damaged checkpoints.
  """
  log.run(run_record(config))
  for note in notes:
    log.message(note)
  groups, members = run.mesh.devices.shape
  start = f"resuming at step {step}" if step else "starting"
  log.message(
    f"{config.preset}: {start} of {run.total_steps} steps, "
    f"{config.batch_size} images each, on {jax.device_count()} "
    f"{jax.devices()[0].device_kind} devices ({groups} batch-norm groups of "
    f"{members}), in {workdir}"
  )
  for line in describe(run.train_source, run.test_source):
    log.message(printable(line))
