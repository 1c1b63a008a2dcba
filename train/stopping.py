"""A run that is asked to stop: by a signal, to this process or another."""

import contextlib
import signal
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
  """Whether the run is to stop.

  Attributes:
    signal: The name of the signal that asked for it; of another process's it is
      SIGTERM, the only one that all of them follow.
  """

  def __init__(self):
    self.signal: str | None = None

  def asked_at(self, step: int) -> bool:
    """Whether to stop after this step; to be asked once after each.

    All processes of a run get the same answer: one that got a SIGTERM tells the
    others, and they agree on a step that none of them has done yet.
    """
    if jax.process_count() > 1:
      if not multihost_utils.reached_preemption_sync_point(step):
        return False
      self.signal = self.signal or signal.SIGTERM.name
    return self.signal is not None


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
  """Takes SIGTERM and SIGINT as wishes to stop.

  The signal after that acts as it does by default, so that a second Ctrl-C
  stops a process that does not come to its next step. With several processes
  SIGTERM is left to JAX, which tells the others, and SIGINT ends this one.
  """
  stop = Stop()
  if jax.process_count() > 1:
    yield stop
    return
  before = {s: signal.getsignal(s) for s in _SIGNALS}

  def ask(number, frame):
    del frame
    stop.signal = signal.Signals(number).name
    signal.signal(number, before[number])

  for s in _SIGNALS:
    signal.signal(s, ask)
  try:
    yield stop
  finally:
    for s in _SIGNALS:
      signal.signal(s, before[s])
