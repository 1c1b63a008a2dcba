"""Comparison of estimates with published times."""

import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ....train.errors import UsageError
from ...chips import CHIPS, Chip
from ..static import compiler, slice_devices, target
from ..static.compile import Compilation
from ..static.estimate import estimate_compilation
from ..static.kept import kept_compilation
from ..step import read_step, slice_of
from .pairs import Pair

BAND = 0.15
"""Largest error, of all estimates that fitted no constant, when last fitted."""


def compare_pairs(pairs: Iterable[Pair], folder: Path) -> list[dict[str, Any]]:
  """Estimate the programs of pairs, beside their published times.

  Args:
    pairs: Programs and times.
    folder: Folder that keeps compiled programs.

  Returns:
    A row for each pair: `program`, `chip`, `published_us`, `estimate_us`,
    `ratio` (see `Pair.ratio`), `bound` (what takes longest: "HBM", "bundles",
    "links", or "latency" if it is none of them), `clock` (see `Pair`), `fits`,
    `band` ("inside" or "outside"), `source` and `compiler`.
    If a program cannot be estimated, `band` is the reason, one line, and the
    estimate is None.

  Raises:
    UsageError: libtpu is missing, or no program can be estimated.
  """
  target("v5e")  # raises once, rather than for each pair, without libtpu
  rows = []
  for pair in pairs:  # some compile for minutes
    row = _row(pair, folder)
    rows.append(row)
    ratio = row["ratio"]
    found = f"{ratio:.2f} of the published time" if ratio else row["band"]
    print(f"{pair.chip}, {pair.program}: {found}", file=sys.stderr, flush=True)
  if not any(row["ratio"] for row in rows):
    raise UsageError("no program can be estimated; the reasons are above")
  return rows


def errors_by_chip(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
  """Summarise the errors of rows that fitted no constant, by chip.

  >>> row = {"chip": "v5e", "fits": ""}
  >>> error, _ = errors_by_chip([row | {"ratio": r} for r in (0.9, 1.0, 1.02)])
  >>> error["pairs"], round(error["median"], 2), round(error["largest"], 2)
  (3, 0.02, 0.1)
  """
  rows = [row for row in rows if row["ratio"] and not row["fits"]]
  chips = [*dict.fromkeys(row["chip"] for row in rows), "all"]
  summaries = []
  for chip in chips:
    errors = [
      abs(row["ratio"] - 1) for row in rows if chip in (row["chip"], "all")
    ]
    if errors:
      summaries.append(
        {
          "chip": chip,
          "pairs": len(errors),
          "median": statistics.median(errors),
          "largest": max(errors),
        }
      )
  return summaries


def exit_code(rows: Iterable[dict[str, Any]]) -> int:
  """Return 1 if an estimate that fitted no constant is outside, or else 0.

  >>> outside = {"fits": "", "band": "outside"}
  >>> exit_code([outside]), exit_code([outside | {"fits": "STEP_US"}])
  (1, 0)
  """
  return int(any(row["band"] == "outside" and not row["fits"] for row in rows))


def _row(pair: Pair, folder: Path) -> dict[str, Any]:
  us, bound, band = _estimate(pair, folder)
  ratio = us and pair.ratio(us)
  if ratio:
    band = "inside" if abs(ratio - 1) <= BAND else "outside"
  return {
    "program": pair.program,
    "chip": pair.chip,
    "published_us": pair.published_us,
    "estimate_us": us,
    "ratio": ratio,
    "bound": bound,
    "clock": pair.clock,
    "fits": pair.fits,
    "band": band,
    "source": pair.source,
    "compiler": compiler(),
  }


def _estimate(pair: Pair, folder: Path) -> tuple[float | None, str, str]:
  """Return microseconds, the bound, and the reason why there are none."""
  try:
    lowered = pair.lower()
    with kept_compilation(lowered, folder, pair.chip) as compilation:
      return *time_and_bound(pair, compilation, CHIPS[pair.chip]), ""
  except Exception as error:
    # A pair that this version does not compile must not hide all others.
    return None, "", str(error).partition("\n")[0][:160]


def time_and_bound(
  pair: Pair, compilation: Compilation, chip: Chip
) -> tuple[float, str]:
  """Estimate a compiled program with its collectives.

  Args:
    pair: Program.
    compilation: Compiled program.
    chip: Chip, whose constants may be others than in `CHIPS`.

  Returns:
    Microseconds, and what takes longest; see `compare_pairs`.

  Raises:
    UsageError: The dump is empty or not understood.
  """
  estimate = estimate_compilation(compilation, chip)
  us, links = estimate.microseconds, 0.0
  if pair.topology:
    slice_ = slice_of(chip, slice_devices(pair.topology))
    step = read_step(estimate)
    links = sum(movement.us(slice_) for movement in step.movements)
    us = links if pair.is_alone else step.core_us + links
  parts = {"HBM": estimate.hbm_us, "bundles": estimate.issue_us, "links": links}
  longest = max(parts, key=parts.__getitem__)
  return us, longest if parts[longest] > us / 2 else "latency"
