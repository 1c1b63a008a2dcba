"""Evaluation of a network on the test images."""

import contextlib
import time
from typing import Any

from ..collectives import EvaluationTotals
from .data import Skips
from .data.loading.device_prefetch import next_batch
from .input_pipeline import open_eval_batches, prefetch
from .processes.distributed import on_all
from .processes.signals import Stop
from .records.log import RunLog
from .setup import Run
from .state import Variables
from .step import EvalStep

_LONG_CHECK_SECONDS = 5


def evaluate(
  eval_step: EvalStep, variables: Variables, run: Run, skips: Skips, stop: Stop
) -> EvaluationTotals | None:
  """Evaluate a network's variables on every test example once.

  Args:
    eval_step: Evaluation step, from `make_eval_step`.
    variables: Variables to evaluate.
    run: Data and devices of the run.
    skips: Record of the images that are left out.
    stop: Stop request; checked between batches.

  Returns:
    The totals; None if the run is to stop before the last batch.
  """
  totals = EvaluationTotals()
  host_batches = open_eval_batches(run, skips)
  with contextlib.closing(prefetch(iter(host_batches), run.mesh)) as batches:
    for _ in range(len(host_batches)):
      batch = next_batch(batches, stop)
      if batch is None:
        return None
      totals.add(eval_step(variables, batch["image"], batch["label"]))
  return totals


def check_test_images(run: Run, skips: Skips, log: RunLog) -> None:
  """Read the headers and labels of all test images before the first step.

  An image that cannot be evaluated then costs no training.

  Args:
    run: Data and devices of the run.
    skips: Record of the images that are left out.
    log: Log of the run, for the time of a long check.

  Raises:
    UsageError: A test image cannot be evaluated and may not be left out.
  """
  begin = time.perf_counter()
  on_all(lambda: open_eval_batches(run, skips).check())
  seconds = time.perf_counter() - begin
  if seconds > _LONG_CHECK_SECONDS:
    images = f"{len(run.test_source):,} test images"
    log.message(
      f"checked the headers and labels of {images} in {seconds:.0f} s"
    )


def evaluation_record(
  totals: EvaluationTotals, *, step: int, epoch: float
) -> dict[str, Any]:
  """Make the log record of an evaluation.

  Args:
    totals: Sums over all test images.
    step: Number of training steps done.
    epoch: Number of epochs done.
  """
  return {
    "split": "test",
    "step": step,
    "epoch": epoch,
    "examples": totals.examples,
    "correct": totals.correct,
    "correct_top5": totals.correct_top5,
    "top1": totals.top1,
    "top5": totals.top5,
    "loss": totals.mean_loss,
  }
