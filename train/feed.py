"""Training batches on their way to the devices, two ahead of the step."""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from .data import Batch, TrainBatches

_AHEAD = 2
_STOP_SECONDS = 0.1

DeviceBatch = dict[str, jax.Array]


class Feed:
  """An iterator of batches that a thread puts on the devices ahead of time.

  On the devices are the batch in use, two more and the one that the thread is
  putting there. What fails in the thread is raised at the batch's turn. Must
  be closed before the batches.

  Args:
    batches: Where they come from; nothing else may use them then.
    to_devices: Puts one on the devices.
  """

  def __init__(
    self, batches: TrainBatches, to_devices: Callable[[Batch], DeviceBatch]
  ):
    self._batches = batches
    self._to_devices = to_devices
    self._state: Mapping[str, Any] = batches.state()
    self._ready: queue.Queue = queue.Queue(_AHEAD)
    self._closing = threading.Event()
    self._thread = threading.Thread(
      target=self._run, name="podscale-feed", daemon=True
    )
    self._thread.start()

  def __next__(self) -> DeviceBatch:
    item = self._ready.get()
    if isinstance(item, BaseException):
      raise item
    batch, self._state = item
    return batch

  def state(self) -> dict[str, Any]:
    """That of the batches after the last one handed out, to resume from."""
    return dict(self._state)

  def close(self) -> None:
    """End the thread, which finishes the batch it is at."""
    self._closing.set()
    self._thread.join()

  def _run(self) -> None:
    try:
      for batch in self._batches:
        self._put((self._to_devices(batch), self._batches.state()))
        if self._closing.is_set():
          return
    except BaseException as error:  # the step that wants it raises it
      self._put(error)

  def _put(self, item: Any) -> None:
    while not self._closing.is_set():
      try:
        self._ready.put(item, timeout=_STOP_SECONDS)
        return
      except queue.Full:
        pass


class DataWait:
  """How long the devices waited for data.

  The host may be ahead of the devices, and then its waiting costs nothing: only
  what it waits after they have done the last step counts.
  """

  def __init__(self):
    self.seconds = 0.0

  def next(self, feed: Feed, last: jax.Array | None) -> DeviceBatch:
    """The feed's next batch; `last` is a result of the step before."""
    begin = time.perf_counter()
    batch = next(feed)
    if last is None or last.is_ready():  # type: ignore[attr-defined]
      self.seconds += time.perf_counter() - begin
    return batch
