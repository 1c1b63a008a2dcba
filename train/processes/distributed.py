"""Start of a run with several processes, and agreement between them."""

import contextlib
import os
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from ..errors import UsageError, one_line
from ..settings.config import Config
from . import crash_notifier, terminal
from .signals import Stop

# Environment variables by which the log names the launcher. JAX itself decides
# which launcher to use.
_LAUNCHERS = {
  "SLURM_JOB_ID": "SLURM",
  "OMPI_MCA_orte_hnp_uri": "Open MPI",
  "OMPI_COMM_WORLD_RANK": "Open MPI",
  "TPU_WORKER_HOSTNAMES": "GKE",
  "TPU_PROCESS_ADDRESSES": "GKE",
  "KUBERNETES_SERVICE_HOST": "Kubernetes",
}
# JAX takes a process that is silent for longer as dead, and ends the others at
# once. The value exceeds Gloo's 30 s for a first connection, because Gloo's
# error is more helpful.
_HEARTBEAT_SECONDS = 45
_START_SECONDS = 300
_LONGEST_MESSAGE = 1000  # bytes


def join(config: Config) -> str:
  """Connect the processes of the run; call it before JAX's devices are used.

  Args:
    config: Settings `distributed`, `coordinator`, `num_processes` and
      `process_id`.

  Returns:
    Description of the connection, for the log.

  Raises:
    UsageError: There is no launcher although `distributed` is "on", or the
      processes do not find each other.
  """
  given = (config.coordinator, config.num_processes, config.process_id)
  if config.distributed == "off":
    return "one process"
  if given != (None, None, None):
    bind = config.coordinator if config.process_id == 0 else None
    _initialize(
      coordinator_address=config.coordinator,
      num_processes=config.num_processes,
      process_id=config.process_id,
      cluster_detection_method="deactivate",
      # By default the coordinator listens on all addresses of the machine.
      coordinator_bind_address=bind,
    )
    return _joined(f"coordinator {config.coordinator}")
  try:
    _initialize()
  except ValueError as error:
    if config.distributed == "on":
      raise UsageError(
        f"no launcher of many processes was found ({error}); pass "
        "--coordinator HOST:PORT, --num-processes and --process-id"
      ) from None
    return "one process"
  names = (_LAUNCHERS[name] for name in _LAUNCHERS if name in os.environ)
  return _joined(f"started by {next(names, 'Cloud TPU')}")


def first_message(message: str) -> str:
  """Return the first process's message that is not empty, in every process.

  All processes must call this function together.

  Args:
    message: Message of this process; may be empty.

  Returns:
    The message, or "" if all are empty.
  """
  if jax.process_count() == 1:
    return message
  row = np.zeros(_LONGEST_MESSAGE, np.uint8)
  encoded = message.encode()[:_LONGEST_MESSAGE]
  row[: len(encoded)] = np.frombuffer(encoded, np.uint8)
  rows = np.asarray(multihost_utils.process_allgather(row))
  texts = (r.tobytes().rstrip(b"\0").decode(errors="replace") for r in rows)
  return next(filter(None, texts), "")


def on_main(work: Callable[[], None]) -> None:
  """Run `work` in process 0 while the other processes wait.

  Args:
    work: Function to run.

  Raises:
    UsageError: `work` raised it; every process raises it then.
  """
  on_all(work if jax.process_index() == 0 else lambda: None)


def on_all(work: Callable[[], None]) -> None:
  """Run `work` in every process, and wait for all of them.

  Args:
    work: Function to run.

  Raises:
    UsageError: `work` raised it in some process; every process raises the first
      one.
  """
  message = ""
  try:
    work()
  except UsageError as error:
    message = str(error)
  message = first_message(message)
  if message:
    raise UsageError(message)


def main_decides(condition: bool) -> bool:
  """Return process 0's value of a condition, in every process."""
  is_main = jax.process_index() == 0
  return first_message("yes" if is_main and condition else "") == "yes"


def same_on_all(what: str, text: str) -> None:
  """Check that a text is the same in every process.

  Args:
    what: Name of what the text describes, such as "images".
    text: Text of this process.

  Raises:
    UsageError: The texts differ; every process raises it.
  """
  main_text = first_message(text)

  def check() -> None:
    if text != main_text:
      raise UsageError(
        f"process {jax.process_index()} and process 0 have different {what}: "
        f"{text} and {main_text}"
      )

  on_all(check)


@contextlib.contextmanager
def leaving_together(
  stop: Stop, say: Callable[[Exception], int]
) -> Iterator[None]:
  """End this process at once if it fails or another process is gone.

  A process that exits normally first waits for the others, but they wait for it
  in a collective. After an immediate exit the others notice the loss within a
  minute and raise an error, or JAX ends them and the crash notifier prints
  their line.

  Args:
    stop: Stop request; processes that leave for a signal print no error.
    say: Function that prints an error and returns the exit code.
  """
  try:
    yield
  except Exception as error:
    stop.give_way()
    if jax.process_count() == 1:
      raise
    if isinstance(error, jax.errors.JaxRuntimeError):
      reason = str(error).splitlines()[0][:200]
      error = RuntimeError(
        f"process {jax.process_index()} of {jax.process_count()} cannot "
        f"continue, most likely because another process is gone ({reason}); "
        "start the run again with the same --workdir"
      )
    terminal.leave(say(error))


def _initialize(**settings) -> None:
  try:
    jax.distributed.initialize(
      heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
      initialization_timeout=_START_SECONDS,
      **settings,
    )
  except RuntimeError as error:
    raise UsageError(
      f"the processes of the run did not find each other: {one_line(error)}"
    ) from None


def _joined(how: str) -> str:
  process = f"process {jax.process_index()} of {jax.process_count()}"
  if jax.process_count() > 1:
    crash_notifier.name(process)
  return f"{how}, {process}"
