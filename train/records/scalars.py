"""Writer of scalars for TensorBoard, without a thread.

`tensorboardX.SummaryWriter` writes from a thread, which a full disk kills; its
callers then wait for that thread forever.
"""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from .append_file import AppendFile
from .tfrecord import frame


class Scalars:
  """New event file in a TensorBoard folder.

  Args:
    folder: Folder of event files; made if missing.
    purge_step: Step from which TensorBoard hides the values of other files.

  Raises:
    OSError: The file cannot be made.
  """

  def __init__(self, folder: Path, *, purge_step: int):
    folder.mkdir(parents=True, exist_ok=True)
    # TensorBoard reads the files of a folder in alphabetical order.
    name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
    self._file = AppendFile(folder / f"{name}.{os.getpid()}")
    start = SessionLog(status=SessionLog.START)
    self._file.append(
      _record(file_version="brain.Event:2")
      + _record(step=purge_step, session_log=start)
    )

  def add(self, step: int, values: Mapping[str, float]) -> str:
    """Write the values of a step.

    Args:
      step: Number of steps done.
      values: Values by name.

    Returns:
      The reason why they stay in memory; "" if they are written.
    """
    return self._file.append(
      b"".join(
        _record(step=step, summary=scalar(name, value))
        for name, value in values.items()
      )
    )

  def close(self) -> None:
    """Close the file."""
    self._file.close()


def _record(**event: Any) -> bytes:
  return frame(Event(wall_time=time.time(), **event).SerializeToString())
