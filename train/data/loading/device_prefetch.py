"""Training batches on their way to the devices, two ahead of the step."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from ...processes.signals import Stop
from .prefetch import Batch

_AHEAD = 2
_STOP_SECONDS = 0.1
_WAIT_SECONDS = 0.5
_CLOSE_SECONDS = 5.0

DeviceBatch = dict[str, jax.Array]


class DevicePrefetch:
  """An iterator of batches that a thread copies to the devices ahead of time.

  The devices hold the batch in use, two more, and the one that the thread is
  copying. An error in the thread is raised at the turn of its batch, and at
  every later call.

  Args:
    batches: A generator or `TrainBatches`, used by this object alone, which
      closes it.
    to_devices: Copies a batch to the devices.
    state: Returns the state of `batches`; called in the thread.
  """

  def __init__(
    self,
    batches: Iterator[Batch],
    to_devices: Callable[[Batch], DeviceBatch],
    state: Callable[[], Mapping[str, Any]] = dict,
  ):
    self._batches = batches
    self._to_devices = to_devices
    self._state_of_batches = state
    self._state = state()
    self._item: Any = None  # the next batch, once it is ready
    self._ready: queue.Queue = queue.Queue(_AHEAD)
    self._closing = threading.Event()
    self._thread = threading.Thread(
      target=self._run, name="podscale-device-prefetch", daemon=True
    )
    self._thread.start()

  def __iter__(self) -> "DevicePrefetch":
    return self

  def __next__(self) -> DeviceBatch:
    while not self.wait(_WAIT_SECONDS):
      pass
    if isinstance(self._item, BaseException):
      raise self._item
    batch, self._state = self._item
    self._item = None
    return batch

  def wait(self, seconds: float) -> bool:
    """Wait for the next batch.

    Args:
      seconds: Longest time to wait.

    Returns:
      True if `next` would return a batch or raise at once.
    """
    if self._item is None:
      with contextlib.suppress(queue.Empty):
        self._item = self._ready.get(timeout=seconds)
    return self._item is not None

  def state(self) -> dict[str, Any]:
    """Return the state of the batches behind the last one returned."""
    return dict(self._state)

  def close(self) -> None:
    """End the thread after its current batch, and close the batches.

    A thread that does not end within some seconds, because its disk hangs,
    lives until the process ends.
    """
    self._closing.set()
    self._thread.join(_CLOSE_SECONDS)
    if not self._thread.is_alive():
      self._batches.close()  # type: ignore[attr-defined]

  def _run(self) -> None:
    try:
      for batch in self._batches:
        self._put((self._to_devices(batch), self._state_of_batches()))
        if self._closing.is_set():
          return
      self._put(StopIteration())
    except BaseException as error:  # `next` raises it
      self._put(error)

  def _put(self, item: Any) -> None:
    while not self._closing.is_set():
      try:
        self._ready.put(item, timeout=_STOP_SECONDS)
        return
      except queue.Full:
        pass


def next_batch(batches: DevicePrefetch, stop: Stop) -> DeviceBatch | None:
  """Take the next batch, unless the run is to stop.

  All processes call this equally often, and all get a batch or all get None.

  Returns:
    The batch; None if the run is to stop, and then no batch is taken.

  Raises:
    StopIteration: The batches have ended.
  """
  while not (batches.wait(_WAIT_SECONDS) or stop.cannot_wait()):
    pass
  if stop.asked():
    return None
  with stop.needing_input():
    return next(batches)


class DataWait:
  """The time for which the devices waited for data.

  While the devices are busy, the host's waiting costs nothing. Only the time
  after the devices have finished the last step counts.
  """

  def __init__(self):
    self.seconds = 0.0

  def next(
    self, batches: DevicePrefetch, stop: Stop, last: jax.Array | None
  ) -> DeviceBatch | None:
    """Take the next batch, see `next_batch`, and measure the wait.

    Args:
      batches: Batches on the devices.
      stop: Signals of the run.
      last: A result of the step before; None before the first step.
    """
    begin = time.perf_counter()
    batch = next_batch(batches, stop)
    if last is None or last.is_ready():  # type: ignore[attr-defined]
      self.seconds += time.perf_counter() - begin
    return batch
