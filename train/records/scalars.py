"""Scalars for TensorBoard, written at once by who adds them.

`tensorboardX.SummaryWriter` writes from a thread, which dies of a full disk;
who adds scalars then waits for it for ever.
"""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from .append_file import Lines
from .tfrecord import frame


class Scalars:
  """A new file in a folder of TensorBoard's.

  Args:
    folder: Made if it is not there.
    purge_step: TensorBoard hides what other files have from this step on.

  Raises:
    OSError: If the file cannot be made.
  """

  def __init__(self, folder: Path, *, purge_step: int):
    folder.mkdir(parents=True, exist_ok=True)
    # TensorBoard reads the files of a folder in the order of their names.
    name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
    self._records = Lines(folder / f"{name}.{os.getpid()}")
    start = SessionLog(status=SessionLog.START)
    self._records.add(
      _record(file_version="brain.Event:2")
      + _record(step=purge_step, session_log=start)
    )

  def add(self, step: int, values: Mapping[str, float]) -> str:
    """Write the values of a step.

    Returns:
      Why they are kept, to be written with the next; "" where they are written.
    """
    return self._records.add(
      b"".join(
        _record(step=step, summary=scalar(name, value))
        for name, value in values.items()
      )
    )

  def close(self) -> None:
    """Close the file."""
    self._records.close()


def _record(**event: Any) -> bytes:
  return frame(Event(wall_time=time.time(), **event).SerializeToString())
