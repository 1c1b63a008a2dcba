"""Lock of a workdir."""

import contextlib
import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest
from support.full_disk import files_up_to

from podscale.train.errors import UsageError
from podscale.train.records.lock import LOCK, WorkdirLock


def holding_process(workdir, *, then=""):
  """Start a process that takes the lock and prints a line."""
  code = f"""
import subprocess, sys, time
from podscale.train.records.lock import WorkdirLock
lock = WorkdirLock({str(workdir)!r})
lock.take()
{then}
print("taken", flush=True)
time.sleep(600)
"""
  process = subprocess.Popen(
    [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
  )
  assert process.stdout.readline() == "taken\n"
  return process


def test_the_second_is_refused_and_told_who_has_it(tmp_path):
  with (
    contextlib.closing(WorkdirLock(tmp_path)) as first,
    contextlib.closing(WorkdirLock(tmp_path)) as second,
  ):
    assert first.take() == ""
    assert first.take() == ""  # as a rollback does
    with pytest.raises(UsageError) as error:
      second.take()
    assert str(error.value) == (
      f"{tmp_path} is in use by another run (process {os.getpid()} on "
      f"{socket.gethostname()}); wait until it ends, stop it, or choose "
      "another --workdir"
    )
    first.close()
    assert second.take() == ""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_leaves_none_behind(tmp_path, number):
  # Child processes that outlive it do not hold the lock either.
  child = "subprocess.Popen([sys.executable, '-c', 'input()'], stdin=-1)"
  process = holding_process(tmp_path, then=f"child = {child}")
  with contextlib.closing(WorkdirLock(tmp_path)) as lock:
    with pytest.raises(UsageError, match=rf"\(process {process.pid} on "):
      lock.take()
    process.send_signal(number)
    process.communicate()
    assert lock.take() == ""
  assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")


def test_a_full_disk_keeps_nobody_from_locking(tmp_path):
  with (
    contextlib.closing(WorkdirLock(tmp_path)) as first,
    contextlib.closing(WorkdirLock(tmp_path)) as second,
  ):
    with files_up_to(0):
      assert first.take() == ""
    with pytest.raises(UsageError, match="its host and process are unknown"):
      second.take()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_without_locks_the_reason_is_returned(tmp_path, monkeypatch, number):
  def flock(file, how):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(fcntl, "flock", flock)
  with contextlib.closing(WorkdirLock(tmp_path)) as lock:
    said = lock.take()
  assert said == f"no lock on {tmp_path / LOCK}: {os.strerror(number)}"


def test_a_lock_that_is_a_link_or_a_folder_is_refused(tmp_path):
  (tmp_path / "elsewhere").touch()
  (tmp_path / LOCK).symlink_to("elsewhere")
  with pytest.raises(UsageError, match="cannot write .*lock: "):
    WorkdirLock(tmp_path).take()
  (tmp_path / LOCK).unlink()
  (tmp_path / LOCK).mkdir()
  with pytest.raises(UsageError, match="lock: Is a directory"):
    WorkdirLock(tmp_path).take()
