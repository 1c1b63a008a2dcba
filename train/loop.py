"""Training loop: from settings to a trained network."""

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from ..collectives import EvaluationTotals
from .assembly import Assembly, assemble
from .data import Skips
from .data.loading.device_prefetch import DevicePrefetch
from .errors import NonFiniteError, SaveError, UsageError
from .evaluation import check_test_images, evaluate, evaluation_record
from .input_pipeline import open_train_batches, prefetch
from .metrics_window import MetricsWindow
from .non_finite import describe_non_finite
from .processes import terminal
from .processes.console import RunConsole
from .processes.distributed import main_decides
from .processes.signals import Stop
from .processes.watchdog import Watchdog
from .records.checkpoint import Checkpoints
from .records.lock import WorkdirLock
from .records.log import RunLog
from .records.report import report
from .records.wall_time import STEPS, WallTime
from .settings.config import Config
from .setup import Run, set_up
from .start import claim_workdir, log_start, open_log, restore
from .state import TrainState

# Pauses between attempts to save the last state; shorter after a signal.
_RETRY_SECONDS = (1, 4, 10)


class Trained(NamedTuple):
  """Result of a run.

  Attributes:
    state: State after the last step, with whole tensors by name.
    evaluation: Last evaluation of the averaged variables on the test split.
      A run that a signal stops does not evaluate its last state; None if it
      stopped before the first evaluation.
  """

  state: TrainState
  evaluation: EvaluationTotals | None


def train(
  config: Config, console: Console | None = None, stop: Stop | None = None
) -> Trained:
  """Train and evaluate a network; resume if the workdir holds a checkpoint.

  Args:
    config: Settings of the run.
    console: Console for the log lines; None prints to the terminal.
    stop: Stop request; None listens for SIGTERM and SIGINT during training.

  Raises:
    UsageError: Settings, data or workdir cannot be used.
    NonFiniteError: The loss or the gradient of a step is not finite, and the
      settings forbid a rollback or the run has used up its rollbacks.
    SaveError: Every attempt to save the last state failed.
  """
  console = console or RunConsole()
  config = replace(config, workdir=_workdir(config))
  if stop is not None:
    return _train_with_rollbacks(config, console, stop)
  stop = Stop()
  stop.joined()
  stop.listen()
  with contextlib.closing(stop):
    return _train_with_rollbacks(config, console, stop)


def _train_with_rollbacks(
  config: Config, console: Console, stop: Stop
) -> Trained:
  data_state: dict[str, Any] | None = None
  rollbacks = 0
  with contextlib.closing(WorkdirLock(config.workdir or "")) as lock:
    while True:
      try:
        return _train(config, console, stop, data_state, lock)
      except NonFiniteError as error:
        if config.non_finite == "stop" or rollbacks == config.most_rollbacks:
          raise
        rollbacks += 1
        data_state = error.data_state
        if jax.process_index() == 0:
          text = (
            f"{error}; rolling back, then training on the images that follow "
            f"(rollback {rollbacks} of at most {config.most_rollbacks})"
          )
          console.print(text, markup=False, highlight=False, soft_wrap=True)


def _train(
  config: Config,
  console: Console,
  stop: Stop,
  data_state: dict[str, Any] | None,
  lock: WorkdirLock,
) -> Trained:
  """Train to the end, to a signal or to a step that is not finite.

  Args:
    config: Settings of the run.
    console: Console for the log lines.
    stop: Stop request.
    data_state: Position at which the input starts; None takes the position in
      the checkpoint.
    lock: Lock of the workdir.
  """
  wall_time = WallTime()
  run = set_up(config)
  assembly = assemble(
    config,
    run.mesh,
    examples=len(run.train_source),
    num_classes=run.num_classes,
    scale=run.scale,
  )
  workdir = Path(config.workdir or "")
  notes = claim_workdir(config, run, workdir, lock)
  terminal.keep_in(workdir, jax.process_index())
  stop.advice = f"to resume, run the same command with --workdir {workdir}"
  skips = Skips(config.data.skip_bad)
  with contextlib.ExitStack() as stack:
    host_batches = open_train_batches(config, run, skips)
    checkpoints = stack.enter_context(
      Checkpoints(workdir / "checkpoints", keep=config.keep_checkpoints)
    )
    start = restore(checkpoints, assembly, host_batches, run)
    if position := data_state or start.data_state:
      host_batches.restore(position)
    log = stack.enter_context(open_log(workdir, run, start.step, console))
    stop.say = functools.partial(log.message, everywhere=True)
    log_start(log, config, run, workdir, start.step, [*notes, *start.notes])
    watchdog = stack.enter_context(
      Watchdog(lambda text: log.message(text, everywhere=True))
    )
    batches = stack.enter_context(
      contextlib.closing(prefetch(host_batches, run.mesh, host_batches.state))
    )
    loop = _Loop(
      config=config,
      run=run,
      assembly=assembly,
      skips=skips,
      batches=batches,
      checkpoints=checkpoints,
      log=log,
      watchdog=watchdog,
      wall_time=wall_time,
      stop=stop,
      state=start.state,
      step=start.step,
    )
    if main_decides(not log.evaluated or bool(notes)):
      with watchdog.watch("checking the test images"):
        check_test_images(run, skips, log)
    wall_time.add("initialisation", wall_time.seconds()[STEPS])
    loop.run_steps()
    loop.finish()
  if jax.process_index() == 0:
    report(workdir, console)
  return Trained(loop.unpack(loop.state), loop.totals)


class _Due(NamedTuple):
  """Work that is due after a step."""

  evaluate: bool
  save: bool
  log: bool


@dataclass
class _Loop:
  """Training loop over one input, with the files that it writes.

  Attributes:
    config: Settings of the run.
    run: Data and devices of the run.
    assembly: Steps and shardings.
    skips: Record of the images that are left out.
    batches: Training batches on the devices.
    checkpoints: Checkpoints of the run.
    log: Log of the run.
    watchdog: Reporter of work that hangs.
    wall_time: Account of the process's time.
    stop: Stop request.
    state: Training state after the last step.
    step: Number of steps done.
    totals: Last evaluation of this process; None before it.
    stopping: True once a signal stops the run.
  """

  config: Config
  run: Run
  assembly: Assembly
  skips: Skips
  batches: DevicePrefetch
  checkpoints: Checkpoints
  log: RunLog
  watchdog: Watchdog
  wall_time: WallTime
  stop: Stop
  state: TrainState
  step: int
  totals: EvaluationTotals | None = None
  stopping: bool = False

  def __post_init__(self):
    timed = functools.partial(self.wall_time.time_first_call, "compilation")
    self._train_step = timed(self.assembly.train_step)
    self._eval_step = timed(self.assembly.eval_step)
    self.unpack = timed(self.assembly.sharding.unpack)
    self._unpack_average = timed(self.assembly.sharding.unpack_average)
    self._evaluate_every = _interval(self.config.eval_every_epochs, self.run)
    self._save_every = _interval(self.config.checkpoint_every_epochs, self.run)
    self._skips_logged = 0

  def run_steps(self) -> None:
    """Train until the last step or a signal."""
    self._evaluate_restored_state()
    window = MetricsWindow()
    while self.step < self.run.total_steps and not self.stopping:
      self._take_step(window)
      due = self._due()
      if due.log and window.metrics:
        self._report(window, due)
        window = MetricsWindow()

  def finish(self) -> None:
    """Save the last state, and evaluate it if nothing has been evaluated."""
    with (
      self.wall_time.measure("checkpoints"),
      self.watchdog.watch("saving"),
    ):
      _save_last(self.save, self.checkpoints, self.log, self.stop)
    self.stop.saved()
    if not self.stopping and self.totals is None:
      # The checkpoint was already that of the last step.
      with self.wall_time.measure("evaluation"):
        self.totals = self._evaluate()
      self.stopping = self.totals is None
    if self.stopping:
      self.log.message(
        f"stopped by {self.stop.signal} at step {self.step}, saved; "
        f"{self.stop.advice}"
      )
    self.log.times(self.step, self.wall_time.seconds())

  def save(self) -> None:
    """Start to save the state and the position of the input."""
    self.checkpoints.save(
      self.step, self.unpack(self.state), self.batches.state()
    )

  def _evaluate_restored_state(self) -> None:
    """Run an evaluation that the process before saved for, but missed."""
    last = self.step == self.run.total_steps
    due = last or (self.step and self.step % self._evaluate_every == 0)
    if due and main_decides(self.step not in self.log.evaluated):
      self._evaluate_and_log()

  def _take_step(self, window: MetricsWindow) -> None:
    with self.watchdog.watch("waiting for images"):
      batch = window.next_batch(self.batches, self.stop)
    if batch is None:
      self.stopping = True
      return
    with self.watchdog.watch("starting a step"):
      images = self.assembly.augment(batch)
      self.state, metrics = self._train_step(self.state, images, batch["label"])
    self.stop.started(metrics["loss"])
    self.step += 1
    window.metrics.append(metrics)

  def _due(self) -> _Due:
    last = self.step == self.run.total_steps
    evaluate = not self.stopping and (
      last or self.step % self._evaluate_every == 0
    )
    save = last or self.stopping or self.step % self._save_every == 0
    log = evaluate or save or self.step % self.config.log_every_steps == 0
    return _Due(evaluate, save, log)

  def _report(self, window: MetricsWindow, due: _Due) -> None:
    """Log the steps of a window, then save and evaluate if that is due."""
    with self.watchdog.watch("waiting for the devices"):
      values = window.fetch()
    self._check_finite(values)
    progress = {"step": self.step, "epoch": self._epoch()}
    self.log.train(progress | window.summarize(values, self.config.batch_size))
    self.wall_time.add("data wait", window.wait_seconds)
    # Before the evaluation, so that an error in it costs no training.
    if due.save:
      self._save_or_go_on()
    if due.evaluate:
      self._evaluate_and_log()
    if due.evaluate or due.save:
      self.log.times(self.step, self.wall_time.seconds())

  def _check_finite(self, values: list[dict[str, np.ndarray]]) -> None:
    """Raise a NonFiniteError if a loss or gradient is not finite."""
    leaves = self.state.variables.params.packing.paths
    problem = describe_non_finite(values, self.step - len(values) + 1, leaves)
    if not problem:
      return
    with contextlib.suppress(SaveError):
      self.checkpoints.wait()
    good = self.checkpoints.latest_step()
    where = (
      "no checkpoint is saved yet"
      if good is None
      else f"the last good checkpoint is that of step {good}"
    )
    error = NonFiniteError(f"{problem}; {where}")
    error.data_state = self.batches.state()
    raise error

  def _save_or_go_on(self) -> None:
    with (
      self.wall_time.measure("checkpoints"),
      self.watchdog.watch("saving"),
    ):
      try:
        self.save()
      except SaveError as error:
        self.log.message(f"{error}; the run goes on")

  def _evaluate_and_log(self) -> None:
    with (
      self.wall_time.measure("evaluation"),
      self.watchdog.watch("evaluation"),
    ):
      totals = self._evaluate()
    if totals is None:
      self.stopping = True
      return
    self.totals = totals
    self.log.eval(
      evaluation_record(totals, step=self.step, epoch=self._epoch())
    )
    if len(self.skips) > self._skips_logged:
      self.log.message(self.skips.summary(), everywhere=True)
      self._skips_logged = len(self.skips)

  def _evaluate(self) -> EvaluationTotals | None:
    average = self._unpack_average(self.state)
    return evaluate(self._eval_step, average, self.run, self.skips, self.stop)

  def _epoch(self) -> float:
    return self.step / self.run.steps_per_epoch


def _save_last(
  save: Callable[[], None], checkpoints: Checkpoints, log: RunLog, stop: Stop
) -> None:
  """Save the last state and wait for the disk; retry what fails.

  Raises:
    SaveError: Every attempt failed.
  """
  pauses = iter(_RETRY_SECONDS)
  while True:
    try:
      save()
      return checkpoints.wait()
    except SaveError as error:
      pause = next(pauses, None)
      if pause is None:
        raise
      log.message(f"{error}; trying again in at most {pause} s")
      stop.sleep(pause)


def _interval(epochs: float, run: Run) -> int:
  return max(1, round(epochs * run.steps_per_epoch))


def _workdir(config: Config) -> str:
  if config.workdir is not None:
    return config.workdir
  if jax.process_count() > 1:
    raise UsageError(
      f"{jax.process_count()} processes need a --workdir that all of them can "
      "read and write"
    )
  return f"runs/{config.preset}-{datetime.now():%Y%m%d-%H%M%S}"
