"""Many processes as one run: how they find each other and agree."""

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

# What a launcher leaves in the environment, to name it in the log; which of
# them JAX follows is its own choice.
_LAUNCHERS = {
  "SLURM_JOB_ID": "SLURM",
  "OMPI_MCA_orte_hnp_uri": "Open MPI",
  "OMPI_COMM_WORLD_RANK": "Open MPI",
  "TPU_WORKER_HOSTNAMES": "GKE",
  "TPU_PROCESS_ADDRESSES": "GKE",
  "KUBERNETES_SERVICE_HOST": "Kubernetes",
}
# A process that is silent for longer has died, and JAX ends the others where
# they are, which leaves them their last words. Gloo gives up a first connection
# after 30 s, which comes to an error that says more.
_HEARTBEAT_SECONDS = 45
_START_SECONDS = 300
_LONGEST_MESSAGE = 1000  # bytes


def join(config: Config) -> str:
  """Joins the other processes of the run, before JAX's devices are looked at.

  Args:
    config: `distributed` and, for processes that are told, `coordinator`,
      `num_processes` and `process_id`.

  Returns:
    What was chosen, for the log.

  Raises:
    UsageError: no launcher was found with "on", or the others do not come.
  """
  told = (config.coordinator, config.num_processes, config.process_id)
  if config.distributed == "off":
    return "one process"
  if told != (None, None, None):
    bind = config.coordinator if config.process_id == 0 else None
    _initialize(
      coordinator_address=config.coordinator,
      num_processes=config.num_processes,
      process_id=config.process_id,
      cluster_detection_method="deactivate",
      # By default it listens on all addresses of the machine.
      coordinator_bind_address=bind,
    )
    return _ours(f"told, coordinator {config.coordinator}")
  try:
    _initialize()
  except ValueError as error:
    if config.distributed == "on":
      raise UsageError(
        f"no launcher of many processes was found ({error}); name "
        "--coordinator HOST:PORT, --num-processes and --process-id"
      ) from None
    return "one process"
  names = (_LAUNCHERS[name] for name in _LAUNCHERS if name in os.environ)
  return _ours(f"started by {next(names, 'Cloud TPU')}")


def first_message(message: str) -> str:
  """The first message, by process, of all that are not empty; "" without any.

  All processes call this at the same time, and get the same answer.
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
  """Does `work` in process 0 while the others wait.

  Raises:
    UsageError: in all of them, what it raised there.
  """
  on_all(work if jax.process_index() == 0 else lambda: None)


def on_all(work: Callable[[], None]) -> None:
  """Does `work` in every process, and waits for the others.

  Raises:
    UsageError: in all of them, what it raised in the first where it did.
  """
  message = ""
  try:
    work()
  except UsageError as error:
    message = str(error)
  message = first_message(message)
  if message:
    raise UsageError(message)


@contextlib.contextmanager
def leaving_together(
  stop: Stop, say: Callable[[Exception], int]
) -> Iterator[None]:
  """Ends this process at once where it fails, or another one has.

  A process that ended as usual would first wait for the others, which wait for
  it in a collective. When it is gone they find that out, within a minute, or
  JAX does and ends them before they can; then their last words are said.

  Args:
    stop: Where processes leave for a signal, it comes before their errors.
    say: Prints an error; returns the exit code.
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
        f"process {jax.process_index()} of {jax.process_count()} cannot go on, "
        f"most likely as another one is gone ({reason}); start the run again "
        "with the same --workdir"
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


def _ours(how: str) -> str:
  process = f"process {jax.process_index()} of {jax.process_count()}"
  if jax.process_count() > 1:
    crash_notifier.name(process)
  return f"{how}, {process}"
