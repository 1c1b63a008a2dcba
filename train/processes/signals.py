"""Signals that stop a run, sent to this process or another.

This module imports no JAX, so that a run handles signals from the start.
"""

import contextlib
import ctypes
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_TICK_SECONDS = 1.0
# With several processes JAX handles SIGTERM: it sets this key in the key-value
# store that all processes share.
_NOTICE = "RECEIVED_PREEMPTION_NOTICE"
_LEAVING = "podscale_leaving"
_AGREED_SECONDS = 5.0  # from the signal until all processes agree on a step
_NOTICED_SECONDS = 3.0  # until all processes know that this one leaves
_LAST_SECONDS = 3.0  # process 0 exits last, because the others need it
_INPUT_SECONDS = 20.0  # longest wait for input in a process that cannot save
_END_SECONDS = 10.0  # from the last save to the end of the process
_LONGEST_SECONDS = 600.0  # from the signal to the end of the process
_SHORT_SECONDS = 2.0  # between attempts to save after a signal


class _Result(Protocol):
  def is_ready(self) -> bool: ...


class Stop:
  """Stop request, set by SIGTERM or SIGINT.

  A thread receives the signals, even while the main thread compiles or hangs in
  a read, and prints a line at once. The run stops at its next call of `asked`:
  between steps, between the batches of an evaluation, or while it waits for
  input. A second signal has its default effect.

  With several processes, SIGTERM to one of them stops all, and SIGINT acts like
  SIGTERM.

  Args:
    leave: Function that ends the process with an exit code. The thread calls it
      if the process has nothing to save, if the process still runs ten or
      twenty seconds after its last save, and ten minutes after the signal. With
      None the thread never ends the process.

  Attributes:
    signal: Name of the signal; SIGTERM if another process received it. None
      before a signal.
    say: Function that takes the thread's lines.
    advice: Instruction to resume the run, for those lines.

  Example:
    >>> stop = Stop()
    >>> stop.listen()
    >>> stop.asked()
    False
    >>> stop.close()
  """

  def __init__(self, leave: Callable[[int], Any] | None = None):
    self.signal: str | None = None
    self.say: Callable[[str], None] = _print
    self.advice = "to resume, run the same command"
    self._leave = leave
    self._received = threading.Event()
    self._since = 0.0
    self._polls = 0
    self._client: Any = None  # JAX's key-value store, with several processes
    self._is_main = True
    self._first_step: _Result | None = None
    self._saved: float | None = None
    self._needs_input = False
    self._leaving = False
    self._thread = threading.Thread(
      target=self._listen, name="podscale-stop", daemon=True
    )

  def listen(self) -> None:
    """Handle the signals, until `close` or the end of the process."""
    self._receiver, self._sender = socket.socketpair()
    self._receiver.settimeout(_TICK_SECONDS)
    self._sender.setblocking(False)
    self._wakeup = signal.set_wakeup_fd(
      self._sender.fileno(), warn_on_full_buffer=False
    )
    # None stands for a handler in C, which Python cannot restore.
    self._before = {s: signal.getsignal(s) or signal.SIG_DFL for s in _SIGNALS}
    self._set_handlers()
    self._thread.start()

  def close(self) -> None:
    """Restore the previous signal handlers."""
    for s in self._handled_signals():
      signal.signal(s, self._before[s])
    signal.set_wakeup_fd(self._wakeup)
    self._sender.close()
    self._thread.join()
    self._receiver.close()

  def joined(self) -> None:
    """Follow the other processes; call it once they are connected."""
    import jax
    from jax._src import distributed

    if jax.process_count() > 1:
      self._client = distributed.global_state.client
      self._is_main = jax.process_index() == 0
    elif self._thread.is_alive():
      self._set_handlers()  # under a launcher JAX has replaced the handler

  def asked(self) -> bool:
    """Tell if the run must stop here.

    All processes must call this equally often. They get the same answer,
    because they agree on a call that none of them has made yet.
    """
    if not self._client:
      return self._received.is_set()
    from jax.experimental import multihost_utils

    self._polls += 1
    if not multihost_utils.reached_preemption_sync_point(self._polls):
      return False
    self._record(signal.SIGTERM.name)
    return True

  def cannot_wait(self) -> bool:
    """Tell if the caller must call `asked` now instead of awaiting input."""
    seconds = _AGREED_SECONDS if self._client else 0.0
    return self._received.is_set() and time.monotonic() > self._since + seconds

  @contextlib.contextmanager
  def needing_input(self) -> Iterator[None]:
    """Mark a wait for input that another process already has.

    Without that input this process can neither continue nor save. It leaves
    twenty seconds after a signal, and the other processes leave with it.
    """
    self._needs_input = True
    try:
      yield
    finally:
      self._needs_input = False

  def sleep(self, seconds: float) -> None:
    """Sleep; a signal shortens the rest of the sleep to two seconds.

    Args:
      seconds: Duration without a signal.
    """
    self._received.wait(max(0.0, seconds - _SHORT_SECONDS))
    time.sleep(min(seconds, _SHORT_SECONDS))

  def started(self, result: _Result) -> None:
    """Note a step's result; once it is ready there is something to save.

    Args:
      result: Result of a step; only the first call counts.
    """
    if self._first_step is None:
      self._first_step = result

  def give_way(self) -> None:
    """Wait forever if the thread is about to end the process.

    Call it before printing an error: the loss of a leaving process causes
    errors in the others.
    """
    while self._leaving:
      time.sleep(1)

  def saved(self) -> None:
    """Note that everything is saved, so that the process must end soon."""
    self._saved = time.monotonic()

  def _handled_signals(self) -> list[signal.Signals]:
    # With several processes JAX handles SIGTERM and notifies the others.
    return [s for s in _SIGNALS if not (self._client and s == signal.SIGTERM)]

  def _set_handlers(self) -> None:
    for s in self._handled_signals():
      signal.signal(s, self._first_signal)

  def _first_signal(self, number: int, frame: FrameType | None) -> None:
    """Restore the handler before; the thread reacts to the signal itself.

    Python calls this in the main thread, possibly much later.
    """
    signal.signal(number, self._before[signal.Signals(number)])

  def _listen(self) -> None:
    while True:
      try:
        byte = self._receiver.recv(1)
        if not byte:
          return
        if byte[0] in _SIGNALS:
          self._receive(signal.Signals(byte[0]))
      except TimeoutError:
        pass
      self._check()

  def _receive(self, number: signal.Signals) -> None:
    if self._received.is_set():
      if self._leave:  # the main thread may never run its handler
        ctypes.CDLL(None).signal(int(number), None)  # SIG_DFL
        os.kill(os.getpid(), number)
      return
    if self._client:  # the signal is SIGINT; through SIGTERM JAX tells all
      os.kill(os.getpid(), signal.SIGTERM)
    self._record(number.name)

  def _record(self, name: str) -> None:
    if self._received.is_set():
      return
    self.signal, self._since = name, time.monotonic()
    self._received.set()
    if self._client or not self._may_leave():
      self.say(f"{name}: the run saves its state and stops")

  def _check(self) -> None:
    """React to messages of other processes and to deadlines."""
    if self._client and self._saved is None:
      if not self._received.is_set() and self._shared_value(_NOTICE):
        self._record(signal.SIGTERM.name)
      text = self._shared_value(_LEAVING)
      if text:
        self._end(text)
    if not self._received.is_set() or not self._leave:
      return
    seconds = time.monotonic() - self._since
    if self._saved is not None:
      # Several processes wait for each other when they exit.
      longest = _END_SECONDS * (2 if self._client else 1)
      if min(seconds, time.monotonic() - self._saved) > longest:
        self._leave(0)
    elif self._may_leave():
      if not self._client or seconds > _AGREED_SECONDS:
        self._end(
          f"stopped by {self.signal} before a step was done, nothing is lost; "
          f"{self.advice}"
        )
    elif self._needs_input and seconds > _INPUT_SECONDS:
      self._end(
        f"stopped by {self.signal} while a process lacks images and the others "
        f"wait for it; {self.advice}, from the last checkpoint"
      )
    elif seconds > _LONGEST_SECONDS:
      self.say(
        f"{seconds:.0f} s after {self.signal} the run has not ended, so the "
        f"process exits; {self.advice}, from the last checkpoint"
      )
      self._leave(1)

  def _end(self, text: str) -> None:
    """End this process, and through the shared store all others."""
    if self._leave:
      self._leaving = True
      self.say(text)
      if self._client:
        with contextlib.suppress(Exception):  # another process has set it
          self._client.key_value_set(_LEAVING, text)
        time.sleep(_NOTICED_SECONDS + (_LAST_SECONDS if self._is_main else 0))
      self._leave(0)

  def _shared_value(self, key: str) -> str:
    """Return the value of a key in the shared store; "" without one."""
    try:
      return self._client.key_value_try_get(key)
    except Exception:  # JAX's own error type for a missing key
      return ""

  def _may_leave(self) -> bool:
    """Tell if the thread may end the process without losing a step."""
    if not self._leave or self._saved is not None:
      return False
    return self._first_step is None or not self._first_step.is_ready()


def _print(text: str) -> None:
  print(text, flush=True)
