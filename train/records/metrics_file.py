"""Reader of metrics.jsonl, the records of a run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .record import parse_record

METRICS = "metrics.jsonl"


def read_metrics(path: Path) -> list[dict[str, Any]]:
  """Read the records of a metrics.jsonl, one dict per line, in order.

  The function ignores an incomplete last line, which a killed process leaves.

  Args:
    path: File to read.

  Raises:
    UsageError: The file cannot be read, or a complete line is not a record of
      a run.
  """
  try:
    *lines, tail = path.read_bytes().split(b"\n")
  except OSError as e:
    raise UsageError(f"cannot read {path}: {e.strerror}") from e
  if _is_json(tail):
    lines.append(tail)
  records = []
  for number, line in enumerate(lines, start=1):
    try:
      records.append(parse_record(line))
    except ValueError as error:
      raise UsageError(
        f"line {number} of {path} is not a record of a run ({error}); "
        "repair the line or move the file away"
      ) from None
  return records


def _is_json(text: bytes) -> bool:
  try:
    json.loads(text)
  except ValueError:
    return False
  except RecursionError:
    pass  # no record begins with that many brackets
  return True


def history(records: list[dict[str, Any]], step: int) -> list[dict[str, Any]]:
  """Select the records that a run which resumes at `step` keeps.

  The run repeats the steps after its last checkpoint, so their records are
  dropped, and with them the "run" record of a process that saved no later step.

  Args:
    records: All records, in order.
    step: Steps that the restored checkpoint has done.

  >>> history([{"kind": "run", "step": 0}, {"kind": "train", "step": 10}], 0)
  []
  >>> history([{"kind": "run", "step": 0}, {"kind": "train", "step": 10}], 10)
  [{'kind': 'run', 'step': 0}, {'kind': 'train', 'step': 10}]
  """
  return [
    record
    for record in records
    if record["step"] + (record["kind"] == "run") <= step
  ]


def lost_seconds(records: list[dict[str, Any]], step: int) -> float:
  """Compute the recorded time that a run which resumes at `step` has lost.

  Args:
    records: All records, in order.
    step: Steps that the restored checkpoint has done.

  >>> done = {"kind": "train", "step": 10, "time": 50.0}
  >>> lost = {"kind": "train", "step": 20, "time": 80.0}
  >>> lost_seconds([done, lost], 10), lost_seconds([done], 10)
  (30.0, 0.0)
  """
  kept = history(records, step)
  # A process without a checkpoint loses all its time.
  begin = kept[-1] if kept else records[0] if records else {"time": 0.0}
  return (records[-1]["time"] if records else 0.0) - begin["time"]


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Flatten nested settings to dotted names.

  >>> flat({"seed": 0, "model": {"name": "b0"}})
  {'seed': 0, 'model.name': 'b0'}
  """
  leaves: dict[str, Any] = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      leaves |= flat(value, f"{prefix}{name}.")
    else:
      leaves[prefix + name] = value
  return leaves
