"""Metrics of the steps between two lines of the log."""

import time
from typing import Any

import jax
import numpy as np

from .data.loading.device_prefetch import DataWait, DeviceBatch, DevicePrefetch
from .processes.signals import Stop
from .step import Metrics


class MetricsWindow:
  """Metrics of the steps since the last log line, left on the devices.

  Fetching them only once a window lets the host run ahead of the devices.

  Attributes:
    metrics: Metrics of each step so far.
  """

  def __init__(self):
    self.metrics: list[Metrics] = []
    self._wait = DataWait()
    self._begin = time.perf_counter()

  @property
  def wait_seconds(self) -> float:
    """Seconds that the devices waited for data."""
    return self._wait.seconds

  def next_batch(
    self, batches: DevicePrefetch, stop: Stop
  ) -> DeviceBatch | None:
    """Take the next batch and count the devices' waiting for it.

    Args:
      batches: Training batches on the devices.
      stop: Stop request.

    Returns:
      The batch; None if the run is to stop.
    """
    last_loss = self.metrics[-1]["loss"] if self.metrics else None
    return self._wait.next(batches, stop, last_loss)

  def fetch(self) -> list[dict[str, np.ndarray]]:
    """Wait for the devices and return the metrics of each step."""
    return jax.device_get(self.metrics)

  def summarize(
    self, values: list[dict[str, np.ndarray]], batch_size: int
  ) -> dict[str, Any]:
    """Summarize the window for the log.

    Args:
      values: Result of `fetch`.
      batch_size: Images per step.

    Returns:
      The mean loss, the other scalars of the last step, and speed and share of
      waiting from the start of the window to now.
    """
    seconds = time.perf_counter() - self._begin
    scalars = {
      name: float(value)
      for name, value in values[-1].items()
      if name != "leaf_gradient_norms"
    }
    mean_loss = float(np.mean([each["loss"] for each in values]))
    return scalars | {
      "loss": mean_loss,
      "images_per_s": len(values) * batch_size / seconds,
      "data_wait": self.wait_seconds / seconds,
    }
