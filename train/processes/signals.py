"""A run that is asked to stop: by a signal, to this process or another.

Importing this module imports no JAX, so that a signal is heard from the start.
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
# JAX takes SIGTERM where there are several processes, and tells all of them
# under this name in the store of keys and values that they share.
_NOTICE = "RECEIVED_PREEMPTION_NOTICE"
_LEAVING = "podscale_leaving"
_AGREED_SECONDS = 5.0  # from the notice until all agree on where to stop
_HEARD_SECONDS = 3.0  # until all others know that one leaves
_LAST_SECONDS = 3.0  # process 0 outlives the others, who need it
_INPUT_SECONDS = 20.0  # how long a process waits that cannot save
_END_SECONDS = 10.0  # from the last save to the end of the process
_LONGEST_SECONDS = 600.0  # from the signal to the end
_SHORT_SECONDS = 2.0  # between tries to save after a signal


class _Result(Protocol):
  def is_ready(self) -> bool: ...


class Stop:
  """Whether the run is to stop.

  A thread hears SIGTERM and SIGINT wherever the main thread is, in a compiler
  or in a read that hangs, and prints a line at once. The run stops where it
  next calls `asked`: between steps, between the batches of an evaluation, or
  while it waits for input. The second signal acts as it does by default.

  With several processes SIGTERM to one stops all of them, and SIGINT acts as
  SIGTERM does.

  Args:
    leave: Ends the process with an exit code. Called by the thread where the
      process has nothing to save, ten or twenty seconds after everything is
      saved where it still lives then, and ten minutes after the signal.
      None leaves the process to its owner.

  Attributes:
    signal: The name of the signal that came; SIGTERM where another process got
      it. None without one.
    say: Takes the thread's lines.
    advice: How to go on, for those lines.

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
    self.advice = "to go on: the same command"
    self._leave = leave
    self._came = threading.Event()
    self._since = 0.0
    self._polls = 0
    self._client: Any = None  # of several processes
    self._is_main = True
    self._first_step: _Result | None = None
    self._saved: float | None = None
    self._needs_input = False
    self._leaving = False
    self._thread = threading.Thread(
      target=self._listen, name="podscale-stop", daemon=True
    )

  def listen(self) -> None:
    """Take the signals, until `close` or the end of the process."""
    self._ear, self._mouth = socket.socketpair()
    self._ear.settimeout(_TICK_SECONDS)
    self._mouth.setblocking(False)
    self._wakeup = signal.set_wakeup_fd(
      self._mouth.fileno(), warn_on_full_buffer=False
    )
    # None is a handler in C, which Python cannot set again.
    self._before = {s: signal.getsignal(s) or signal.SIG_DFL for s in _SIGNALS}
    self._take_signals()
    self._thread.start()

  def close(self) -> None:
    """Give the signals back to who had them."""
    for s in self._taken():
      signal.signal(s, self._before[s])
    signal.set_wakeup_fd(self._wakeup)
    self._mouth.close()
    self._thread.join()
    self._ear.close()

  def joined(self) -> None:
    """Follow the other processes; called once they have found each other."""
    import jax
    from jax._src import distributed

    if jax.process_count() > 1:
      self._client = distributed.global_state.client
      self._is_main = jax.process_index() == 0
    elif self._thread.is_alive():
      self._take_signals()  # JAX has taken SIGTERM where there was a launcher

  def asked(self) -> bool:
    """Whether to stop here; all processes ask equally often.

    All of them get the same answer: they agree on a call that none of them has
    made yet.
    """
    if not self._client:
      return self._came.is_set()
    from jax.experimental import multihost_utils

    self._polls += 1
    if not multihost_utils.reached_preemption_sync_point(self._polls):
      return False
    self._note(signal.SIGTERM.name)
    return True

  def cannot_wait(self) -> bool:
    """Whether `asked` is to be called now and not when the input has come."""
    seconds = _AGREED_SECONDS if self._client else 0.0
    return self._came.is_set() and time.monotonic() > self._since + seconds

  @contextlib.contextmanager
  def needing_input(self) -> Iterator[None]:
    """Wait for input that must come, as another process has it and goes on.

    Where it does not, this process can neither go on nor save; so it leaves
    twenty seconds after the signal, and the others with it.
    """
    self._needs_input = True
    try:
      yield
    finally:
      self._needs_input = False

  def sleep(self, seconds: float) -> None:
    """Sleep; two seconds at most where a signal has come, or when it comes."""
    self._came.wait(max(0.0, seconds - _SHORT_SECONDS))
    time.sleep(min(seconds, _SHORT_SECONDS))

  def started(self, result: _Result) -> None:
    """There is something to save once this result of the first step is done."""
    if self._first_step is None:
      self._first_step = result

  def give_way(self) -> None:
    """Wait for the end where the thread is about to end the process.

    Called before an error is printed: it may come of the others' leaving.
    """
    while self._leaving:
      time.sleep(1)

  def saved(self) -> None:
    """Everything is saved: what is left must not take long."""
    self._saved = time.monotonic()

  def _taken(self) -> list[signal.Signals]:
    # With several processes SIGTERM is JAX's, which tells the others.
    return [s for s in _SIGNALS if not (self._client and s == signal.SIGTERM)]

  def _take_signals(self) -> None:
    for s in self._taken():
      signal.signal(s, self._first_signal)

  def _first_signal(self, number: int, frame: FrameType | None) -> None:
    """Python's handler, when the main thread gets to it; the thread acts."""
    signal.signal(number, self._before[signal.Signals(number)])

  def _listen(self) -> None:
    while True:
      try:
        heard = self._ear.recv(1)
        if not heard:
          return
        if heard[0] in _SIGNALS:
          self._hear(signal.Signals(heard[0]))
      except TimeoutError:
        pass
      self._look()

  def _hear(self, number: signal.Signals) -> None:
    if self._came.is_set():
      if self._leave:  # the main thread may never come to its handler
        ctypes.CDLL(None).signal(int(number), None)  # SIG_DFL
        os.kill(os.getpid(), number)
      return
    if self._client:  # it is SIGINT: JAX is to tell the others
      os.kill(os.getpid(), signal.SIGTERM)
    self._note(number.name)

  def _note(self, name: str) -> None:
    if self._came.is_set():
      return
    self.signal, self._since = name, time.monotonic()
    self._came.set()
    if self._client or not self._may_leave():
      self.say(f"{name}: the run saves what is done and stops")

  def _look(self) -> None:
    """Act on what other processes tell, and on time that is over."""
    if self._client and self._saved is None:
      if not self._came.is_set() and self._told(_NOTICE):
        self._note(signal.SIGTERM.name)
      text = self._told(_LEAVING)
      if text:
        self._end(text)
    if not self._came.is_set() or not self._leave:
      return
    seconds = time.monotonic() - self._since
    if self._saved is not None:
      # Processes wait for each other at their ends.
      longest = _END_SECONDS * (2 if self._client else 1)
      if min(seconds, time.monotonic() - self._saved) > longest:
        self._leave(0)
    elif self._may_leave():
      if not self._client or seconds > _AGREED_SECONDS:
        self._end(
          f"stopped by {self.signal} before a step was done, so that nothing "
          f"is lost; {self.advice}"
        )
    elif self._needs_input and seconds > _INPUT_SECONDS:
      self._end(
        f"stopped by {self.signal} where images do not come and other "
        f"processes wait for them; {self.advice}, from the last checkpoint"
      )
    elif seconds > _LONGEST_SECONDS:
      self.say(
        f"{seconds:.0f} s after {self.signal} the run has not come to its end "
        f"and is ended; {self.advice}, from the last checkpoint"
      )
      self._leave(1)

  def _end(self, text: str) -> None:
    """Leave, and all other processes with this one."""
    if self._leave:
      self._leaving = True
      self.say(text)
      if self._client:
        with contextlib.suppress(Exception):  # another one was first
          self._client.key_value_set(_LEAVING, text)
        time.sleep(_HEARD_SECONDS + (_LAST_SECONDS if self._is_main else 0))
      self._leave(0)

  def _told(self, key: str) -> str:
    """What the processes are told under a name; "" without."""
    try:
      return self._client.key_value_try_get(key)
    except Exception:  # JAX has an error of its own for a key that is not there
      return ""

  def _may_leave(self) -> bool:
    """Whether it may end the process, as no step is done that is not saved."""
    if not self._leave or self._saved is not None:
      return False
    return self._first_step is None or not self._first_step.is_ready()


def _print(text: str) -> None:
  print(text, flush=True)
