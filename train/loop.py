"""The training loop: from settings to a trained network, in one function."""

import contextlib
import functools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.tree_util import KeyPath, keystr
from rich.console import Console

from ..collectives import ALL_DEVICES, EvaluationTotals
from .assembly import assemble
from .data import (
  Batch,
  EvalBatches,
  Order,
  Shuffled,
  ShuffledInShards,
  Skips,
  Source,
  TrainBatches,
  describe,
  eval_batches,
  train_batches,
)
from .data.loading.device_prefetch import (
  DataWait,
  DeviceBatch,
  DevicePrefetch,
  next_batch,
)
from .errors import NonFiniteError, SaveError, UsageError, printable
from .processes import terminal
from .processes.console import RunConsole
from .processes.distributed import first_message, on_all, on_main
from .processes.signals import Stop
from .processes.watchdog import Watch
from .records.checkpoint import Checkpoints
from .records.lock import WorkdirLock
from .records.log import RunLog, run_record
from .records.report import report
from .records.wall_time import STEPS, Account
from .records.workdir import SplitIdentity, claim
from .settings.config import Config
from .setup import Run, set_up
from .state import TrainState, Variables
from .step import EvalStep, Metrics

_MOST_NAMED = 5  # tensors in a message
_MOST_NORMS = 3
# Between tries to write the last state; after a signal, less.
_RETRY_SECONDS = (1, 4, 10)
_LONG_CHECK_SECONDS = 5


class Trained(NamedTuple):
  """What a run ends with.

  Attributes:
    state: As the last step left it, with the tensors by name.
    evaluation: The last of the averaged variables, on the test split: of
      `state`, but where a signal stopped the run, which is not evaluated
      again. None if it was stopped before the first.
  """

  state: TrainState
  evaluation: EvaluationTotals | None


def train(
  config: Config, console: Console | None = None, stop: Stop | None = None
) -> Trained:
  """Trains and evaluates as `config` says, resuming what its workdir holds.

  Args:
    config: The settings.
    console: Where to print; None is the terminal.
    stop: When to stop; None takes SIGTERM and SIGINT while it trains.

  Returns:
    The state as the last step left it, and the last evaluation.

  Raises:
    UsageError: settings, data or workdir that cannot be used.
    NonFiniteError: the loss or the gradient of a step is not finite, and the
      run is to stop then, or has rolled back as often as it may.
    SaveError: the last state could not be written, tried again and again.
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
            f"{error}; going on from there with the images that follow, "
            f"{rollbacks} of at most {config.most_rollbacks} times"
          )
          console.print(text, markup=False, highlight=False, soft_wrap=True)


def _train(
  config: Config,
  console: Console,
  stop: Stop,
  data_state: dict[str, Any] | None,
  lock: WorkdirLock,
) -> Trained:
  """As `train`, up to a step that is not finite.

  With `data_state` the input goes on from there, not from where the checkpoint
  has it.
  """
  account = Account()
  run = set_up(config)
  assembly = assemble(
    config,
    run.mesh,
    examples=len(run.train_source),
    num_classes=run.num_classes,
    scale=run.scale,
  )
  workdir = Path(config.workdir or "")
  notes = _claim(config, run, workdir, lock)
  terminal.keep_in(workdir, jax.process_index())
  stop.advice = f"to go on: the same command with --workdir {workdir}"

  # --- The state, the data and where both stood ---------------------------
  sharding = assembly.sharding
  train_step, eval_step, unpack, unpack_average = (
    account.first_call("compilation", jitted)
    for jitted in (
      *(assembly.train_step, assembly.eval_step),
      *(sharding.unpack, sharding.unpack_average),
    )
  )
  state = assembly.init_state()
  leaves = state.variables.params.packing.paths
  skips = Skips(config.data.skip_bad)
  with contextlib.ExitStack() as stack:
    batches = _batches(config, run, skips)
    checkpoints = stack.enter_context(
      Checkpoints(workdir / "checkpoints", keep=config.keep_checkpoints)
    )
    step = 0
    damaged: list[str] = []
    restored = checkpoints.restore_latest(
      sharding.unpacked_shapes(state),
      last_step=run.total_steps,
      check_data=batches.check,
    )
    if restored:
      step, saved, saved_data, damaged = restored
      state = sharding.pack(saved, like=state)
      data_state = data_state or saved_data
    if data_state:
      batches.restore(data_state)
    log = stack.enter_context(_open_log(workdir, run, step, console))
    stop.say = functools.partial(log.message, everywhere=True)
    log.run(run_record(config))
    damage = (f"{d}; put aside, the one before is used" for d in damaged)
    for line in (*notes, *damage):
      log.message(line)
    log.message(_banner(config, run, workdir, step))
    for line in describe(run.train_source, run.test_source):
      log.message(printable(line))
    watch = stack.enter_context(
      Watch(lambda text: log.message(text, everywhere=True))
    )

    feed = stack.enter_context(
      contextlib.closing(_feed(batches, run, state=batches.state))
    )

    def save() -> None:
      checkpoints.save(step, unpack(state), feed.state())

    totals: EvaluationTotals | None = None
    told = 0

    def evaluate_and_log() -> bool:
      """Whether it came to its end, and not the run."""
      nonlocal totals, told
      with account.spent_on("evaluation"), watch.over("evaluation"):
        evaluated = evaluate(eval_step, unpack_average(state), run, skips, stop)
      if evaluated is None:
        return False
      totals = evaluated
      log.eval(_eval_record(totals, step, run))
      if len(skips) > told:
        log.message(skips.summary(), everywhere=True)
        told = len(skips)
      return True

    if _main_finds(not log.evaluated or bool(notes)):
      with watch.over("checking the test images"):
        _check_test_images(run, skips, log)
    account.add("initialisation", account.seconds()[STEPS])

    # --- Steps -------------------------------------------------------------
    evaluate_every = _interval(config.eval_every_epochs, run)
    save_every = _interval(config.checkpoint_every_epochs, run)
    is_due = step == run.total_steps or (step and step % evaluate_every == 0)
    stopping = False
    if is_due and _main_finds(step not in log.evaluated):
      # The process that saved this step did not come to it.
      stopping = not evaluate_and_log()
    pending: list[Metrics] = []
    wait = DataWait()
    clock = time.perf_counter()
    while step < run.total_steps and not stopping:
      with watch.over("waiting for images"):
        last_loss = pending[-1]["loss"] if pending else None
        batch = wait.next(feed, stop, last_loss)
      stopping = batch is None
      if batch is not None:
        with watch.over("starting a step"):
          images = assembly.augment(batch)
          state, metrics = train_step(state, images, batch["label"])
        stop.started(metrics["loss"])
        step += 1
        pending.append(metrics)
      last = step == run.total_steps
      evaluates = not stopping and (last or step % evaluate_every == 0)
      saves = last or stopping or step % save_every == 0
      logs = evaluates or saves or step % config.log_every_steps == 0
      if logs and pending:
        with watch.over("waiting for the devices"):
          done = jax.device_get(pending)
        try:
          values = _finite(done, step, checkpoints, leaves)
        except NonFiniteError as error:
          error.data_state = feed.state()
          raise
        seconds = time.perf_counter() - clock
        rate = len(done) * config.batch_size / seconds
        waited = wait.seconds / seconds
        log.train(_train_record(values, step, rate, waited, run))
        account.add("data wait", wait.seconds)
        pending = []
        # What goes wrong in an evaluation costs no training then.
        if saves:
          with account.spent_on("checkpoints"), watch.over("saving"):
            try:
              save()
            except SaveError as error:
              log.message(f"{error}; the run goes on")
        if evaluates:
          stopping = not evaluate_and_log()
        if evaluates or saves:
          log.times(step, account.seconds())
        wait, clock = DataWait(), time.perf_counter()

    # --- The end -----------------------------------------------------------
    with account.spent_on("checkpoints"), watch.over("saving"):
      _save_at_last(save, checkpoints, log, stop)
    stop.saved()
    if not stopping and totals is None:  # resumed where no step was left
      with account.spent_on("evaluation"):
        average = unpack_average(state)
        totals = evaluate(eval_step, average, run, skips, stop)
      stopping = totals is None
    if stopping:
      log.message(
        f"stopped by {stop.signal} at step {step}, saved; {stop.advice}"
      )
    log.times(step, account.seconds())
  if jax.process_index() == 0:
    report(workdir, console)
  return Trained(unpack(state), totals)


def evaluate(
  eval_step: EvalStep, variables: Variables, run: Run, skips: Skips, stop: Stop
) -> EvaluationTotals | None:
  """Evaluate a network's variables on every test example once.

  Returns:
    The sums; None where the run is to stop before all are there.
  """
  totals = EvaluationTotals()
  batches = _eval_batches(run, skips)
  with contextlib.closing(_feed(iter(batches), run)) as feed:
    for _ in range(len(batches)):
      batch = next_batch(feed, stop)
      if batch is None:
        return None
      totals.add(eval_step(variables, batch["image"], batch["label"]))
  return totals


def _claim(
  config: Config, run: Run, workdir: Path, lock: WorkdirLock
) -> list[str]:
  """Takes the workdir, in process 0; returns lines for its log."""
  data = {
    "train": _identity(run.train_source),
    "test": _identity(run.test_source),
  }
  notes: list[str] = []
  on_main(lambda: notes.extend(claim(workdir, config, data, lock)))
  text = json.dumps(data)
  of_main = first_message(text)

  def check_same() -> None:
    if text != of_main:
      raise UsageError(
        f"process {jax.process_index()} has other images than process 0: "
        f"{text} where that has {of_main}"
      )

  on_all(check_same)
  return notes


def _identity(source: Source) -> SplitIdentity:
  return {"examples": len(source), "listing": source.listing}


def _open_log(workdir: Path, run: Run, step: int, console: Console) -> RunLog:
  """The log of this process; what is wrong in process 0 all processes raise."""

  def open_log(is_main: bool) -> RunLog:
    return RunLog(
      workdir,
      total_steps=run.total_steps,
      resume_step=step,
      is_main=is_main,
      console=console,
    )

  logs: list[RunLog] = []
  on_main(lambda: logs.append(open_log(is_main=True)))
  return logs[0] if logs else open_log(is_main=False)


def _main_finds(what: bool) -> bool:
  """What process 0 finds, in all of them."""
  is_main = jax.process_index() == 0
  return first_message("yes" if is_main and what else "") == "yes"


def _check_test_images(run: Run, skips: Skips, log: RunLog) -> None:
  """Refuses test images that an evaluation would stop at, before the steps."""
  begin = time.perf_counter()
  on_all(lambda: _eval_batches(run, skips).check())
  seconds = time.perf_counter() - begin
  if seconds > _LONG_CHECK_SECONDS:
    images = f"{len(run.test_source):,} test images"
    log.message(
      f"checked the headers and labels of {images} in {seconds:.0f} s"
    )


def _eval_batches(run: Run, skips: Skips) -> EvalBatches:
  return eval_batches(
    run.test_source,
    batch_size=run.eval_batch_size,
    resolution=run.resolution,
    skips=skips,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )


def _save_at_last(
  save: Callable[[], None], checkpoints: Checkpoints, log: RunLog, stop: Stop
) -> None:
  """Saves the last state, if it is not, until it is on disk."""
  pauses = iter(_RETRY_SECONDS)
  while True:
    try:
      save()
      return checkpoints.wait()
    except SaveError as error:
      pause = next(pauses, None)
      if pause is None:
        raise
      log.message(f"{error}; trying again in {pause} s at most")
      stop.sleep(pause)


def _batches(config: Config, run: Run, skips: Skips) -> TrainBatches:
  return train_batches(
    run.train_source,
    batch_size=config.batch_size,
    resolution=run.resolution,
    seed=config.seed,
    crop=config.data.crop,
    flip=config.data.flip,
    policy=run.policy,
    augment_later=config.data.augment_on == "device",
    order=_order(config, run),
    skips=skips,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )


def _order(config: Config, run: Run) -> Order:
  examples = len(run.train_source)
  if config.data.cache:
    return ShuffledInShards(examples, config.seed, config.batch_size)
  return Shuffled(examples, config.seed)


def _feed(
  batches: Iterator[Batch], run: Run, state: Callable[[], dict[str, Any]] = dict
) -> DevicePrefetch:
  return DevicePrefetch(
    batches, lambda batch: _to_devices(batch, run.mesh), state
  )


def _to_devices(batch: Batch, mesh: Mesh) -> DeviceBatch:
  """This process's share of a batch, split over the devices."""
  sharding = NamedSharding(mesh, P(ALL_DEVICES))
  return {
    name: jax.make_array_from_process_local_data(sharding, array)
    for name, array in batch.items()
  }


def _interval(epochs: float, run: Run) -> int:
  return max(1, round(epochs * run.steps_per_epoch))


def _finite(
  metrics: list[dict[str, np.ndarray]],
  step: int,
  checkpoints: Checkpoints,
  leaves: Sequence[KeyPath],
) -> dict[str, float]:
  """The mean loss of the last steps and the other scalars of the last one.

  Raises:
    NonFiniteError: the loss or the gradient of one of them is not finite.
  """
  first = step - len(metrics) + 1
  for number, values in enumerate(metrics, first):
    norms = values.pop("leaf_gradient_norms")
    if not all(math.isfinite(v) for v in values.values()):
      with contextlib.suppress(SaveError):
        checkpoints.wait()
      good = checkpoints.latest_step()
      where = (
        "no checkpoint is saved yet"
        if good is None
        else (f"the last good checkpoint is that of step {good}")
      )
      raise NonFiniteError(
        f"step {number} is not finite (loss {values['loss']:g}, gradient norm "
        f"{values['gradient_norm']:g}, learning rate "
        f"{values['learning_rate']:g}{_not_finite(norms, leaves)}"
        f"{_largest(norms, leaves)}); {where}"
      )
  mean_loss = float(np.mean([values["loss"] for values in metrics]))
  return {k: float(v) for k, v in metrics[-1].items()} | {"loss": mean_loss}


def _not_finite(norms: np.ndarray, leaves: Sequence[KeyPath]) -> str:
  """Whose gradients are not finite, if it is not everyone's."""
  bad = np.flatnonzero(~np.isfinite(norms)).tolist()
  names = [_name(leaves[i]) for i in bad]
  if not names:
    return ""
  if len(names) == len(leaves):
    return ", of every tensor"
  more = f" and {len(names) - _MOST_NAMED} more" * (len(names) > _MOST_NAMED)
  return f", not finite in {', '.join(names[:_MOST_NAMED])}{more}"


def _largest(norms: np.ndarray, leaves: Sequence[KeyPath]) -> str:
  """The gradients with the largest norms, of those that are finite."""
  order = np.argsort(np.where(np.isfinite(norms), -norms, np.inf))
  named = [
    f"{_name(leaves[i])} {norms[i]:.3g}"
    for i in order[:_MOST_NORMS].tolist()
    if np.isfinite(norms[i])
  ]
  return f", largest norms {', '.join(named)}" if named else ""


def _name(leaf: KeyPath) -> str:
  return keystr(leaf, simple=True, separator=".")


def _train_record(
  values: dict[str, float], step: int, rate: float, waited: float, run: Run
) -> dict[str, Any]:
  return {
    "step": step,
    "epoch": step / run.steps_per_epoch,
    **values,
    "images_per_s": rate,
    "data_wait": waited,
  }


def _eval_record(
  totals: EvaluationTotals, step: int, run: Run
) -> dict[str, Any]:
  return {
    "split": "test",
    "step": step,
    "epoch": step / run.steps_per_epoch,
    "examples": totals.examples,
    "correct": totals.correct,
    "correct_top5": totals.correct_top5,
    "top1": totals.top1,
    "top5": totals.top5,
    "loss": totals.mean_loss,
  }


def _banner(config: Config, run: Run, workdir: Path, step: int) -> str:
  groups, members = run.mesh.devices.shape
  start = f"resuming at step {step}" if step else "starting"
  return (
    f"{config.preset}: {start} of {run.total_steps} steps, "
    f"{config.batch_size} images each, on {jax.device_count()} "
    f"{jax.devices()[0].device_kind} devices ({groups} batch-norm groups of "
    f"{members}), in {workdir}"
  )


def _workdir(config: Config) -> str:
  if config.workdir is not None:
    return config.workdir
  if jax.process_count() > 1:
    raise UsageError(
      f"{jax.process_count()} processes need a --workdir that they all see"
    )
  return f"runs/{config.preset}-{datetime.now():%Y%m%d-%H%M%S}"
