"""First difference of two runs: `python -m podscale.train diff RUN_A RUN_B`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .metrics_file import METRICS, flat, read_metrics

# Values that depend on the start, not on the training.
_NOT_COMPARED = {"kind", "time", "step", "lost_seconds", "settings.workdir"}
_NOT_COMPARED |= {f"settings.{n}" for n in ("coordinator", "process_id")}
_SPEEDS = {"time", "images_per_s", "data_wait"}


def diff(a: str | Path, b: str | Path) -> list[str]:
  """Find the first differences between two runs.

  Args:
    a: Workdir of a run.
    b: Workdir of another run.

  Returns:
    Up to two lines: the first setting, version or device that differs between
    the runs' last starts, and the first step or evaluation whose numbers
    differ or that is missing in one run. No lines if the runs are the same, bit
    for bit.

  Raises:
    UsageError: A folder has no readable log of a run.
  """
  records = [read_metrics(Path(path) / METRICS) for path in (a, b)]
  starts = [
    _last_start(r, path) for r, path in zip(records, (a, b), strict=True)
  ]
  lines = []
  if named := next(_differing(*starts, skipped=_NOT_COMPARED), None):
    lines.append(f"{named[0]}: {named[1]} in {a}, {named[2]} in {b}")
  steps = [_by_step(r) for r in records]
  for key in sorted({**steps[0], **steps[1]}):
    step, kind = key
    here, there = (s.get(key) for s in steps)
    if here is None or there is None:
      lines.append(f"{kind} at step {step}: only in {b if here is None else a}")
      break
    if named := next(_differing(here, there, skipped=_SPEEDS), None):
      name, mine, other = named
      lines.append(
        f"{kind} at step {step}: {name} {mine} in {a}, {other} in {b}"
      )
      break
  return lines


def _last_start(
  records: list[dict[str, Any]], path: str | Path
) -> dict[str, Any]:
  starts = [record for record in records if record["kind"] == "run"]
  if not starts:
    raise UsageError(f"{Path(path) / METRICS} has no record of a run's start")
  return flat(starts[-1])


def _by_step(
  records: list[dict[str, Any]],
) -> dict[tuple[int, str], dict[str, Any]]:
  """Index records by step and kind; the last one counts.

  A resumed run may log a step twice.
  """
  return {
    (record["step"], record["kind"]): record
    for record in records
    if record["kind"] not in ("run", "times")
  }


def _differing(
  a: Mapping[str, Any], b: Mapping[str, Any], *, skipped: set[str]
) -> Iterator[tuple[str, Any, Any]]:
  for name in {**a, **b}:
    mine, other = a.get(name, "absent"), b.get(name, "absent")
    if name not in skipped and mine != other:
      yield name, mine, other
