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
  """An iterator of batches that a thread puts on the devices ahead of time.

  On the devices are the batch in use, two more and the one that the thread is
  putting there. What fails in the thread is raised at the batch's turn, and
  from then on.

  Args:
    batches: A generator or `TrainBatches`; nothing else may use it then, and
      the feed closes it.
    to_devices: Puts one on the devices.
    state: Tells where the batches stand, in the thread.
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
    self._item: Any = None  # the next, once it is ready
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
    """Wait for the next batch so long; whether `next` has it, or an error."""
    if self._item is None:
      with contextlib.suppress(queue.Empty):
        self._item = self._ready.get(timeout=seconds)
    return self._item is not None

  def state(self) -> dict[str, Any]:
    """That of the batches after the last one handed out, to resume from."""
    return dict(self._state)

  def close(self) -> None:
    """End the thread, which finishes the batch it is at, and the batches.

    A thread that is still at it after some seconds, as its disk may hang, is
    left to the end of the process.
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
    except BaseException as error:  # the step that wants it raises it
      self._put(error)

  def _put(self, item: Any) -> None:
    while not self._closing.is_set():
      try:
        self._ready.put(item, timeout=_STOP_SECONDS)
        return
      except queue.Full:
        pass


def next_batch(batches: DevicePrefetch, stop: Stop) -> DeviceBatch | None:
  """Take the feed's next batch; None where the run is to stop.

  All processes call this equally often and get a batch or None together. Where
  it is None the feed is as it was.

  Raises:
    StopIteration: there are no more.
  """
  while not (batches.wait(_WAIT_SECONDS) or stop.cannot_wait()):
    pass
  if stop.asked():
    return None
  with stop.needing_input():
    return next(batches)


class DataWait:
  """How long the devices waited for data.

  The host may be ahead of the devices, and then its waiting costs nothing: only
  what it waits after they have done the last step counts.
  """

  def __init__(self):
    self.seconds = 0.0

  def next(
    self, batches: DevicePrefetch, stop: Stop, last: jax.Array | None
  ) -> DeviceBatch | None:
    """The `next_batch`; `last` is a result of the step before."""
    begin = time.perf_counter()
    batch = next_batch(batches, stop)
    if last is None or last.is_ready():  # type: ignore[attr-defined]
      self.seconds += time.perf_counter() - begin
    return batch
