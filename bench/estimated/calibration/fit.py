"""Constants of the model: what each pair asks for, and a leave-one-out check.

A pair that fits a constant asks for the value that makes its estimate equal to
the published time. The constant is the rounded geometric mean of what its pairs
ask for. Each pair is then estimated with the mean of all others.
"""

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ...chips import CHIPS
from ..static.kept import kept_compilation
from .compare import time_and_bound
from .pairs import Pair

FIELDS = {
  "HBM_EFFICIENCY": ("hbm_efficiency", 0.5, 1.0),
  "DMA_SHARE": ("dma_share", 0.3, 1.0),
  "DMA_LATENCY_US": ("latency_us", 0.1, 2.0),
  "LINK_EFFICIENCY": ("link_efficiency", 0.5, 1.0),
  "STEP_US": ("step_us", 0.5, 15.0),
}
"""Field of `Chip`, smallest and largest value of each constant."""

_HALVINGS = 12


class _Asked(NamedTuple):
  pair: Pair
  value: float
  estimate: Callable[[float], float]


def fit_rows(pairs: Iterable[Pair], folder: Path) -> list[dict[str, Any]]:
  """Fit each constant to each of its pairs alone.

  Args:
    pairs: Programs and times; those that fit no constant are left out.
    folder: Folder that keeps compiled programs.

  Returns:
    A row for each pair: `constant`, its `value`, `chip` and `program` of the
    pair; `asks`, the value that the pair alone asks for; `others ask`, the mean
    of the others, or None without others; and `ratio`, the estimate with that
    mean divided by the published time.
  """
  by_constant: dict[str, list[_Asked]] = {name: [] for name in FIELDS}
  for pair in pairs:
    if pair.fits:
      by_constant[pair.fits].append(_ask(pair, folder))
  return [
    _row(name, one, [x.value for x in asked if x is not one])
    for name, asked in by_constant.items()
    for one in asked
  ]


def _row(name: str, one: _Asked, others: list[float]) -> dict[str, Any]:
  field, _, _ = FIELDS[name]
  mean = statistics.geometric_mean(others) if others else None
  return {
    "constant": name,
    "value": getattr(CHIPS[one.pair.chip], field),
    "chip": one.pair.chip,
    "program": one.pair.program,
    "asks": one.value,
    "others ask": mean,
    "ratio": None if mean is None else one.pair.ratio(one.estimate(mean)),
  }


def _ask(pair: Pair, folder: Path) -> _Asked:
  field, low, high = FIELDS[pair.fits]
  own = CHIPS[pair.chip]
  lowered = pair.lower()

  def estimate(value: float) -> float:
    changed: dict[str, Any] = {field: value}
    chip = own._replace(**changed)
    with kept_compilation(lowered, folder, pair.chip) as compilation:
      return time_and_bound(pair, compilation, chip)[0]

  # The middle of the times that the publication allows.
  published_us = pair.published_us - pair.overhead_us / 2
  return _Asked(pair, _solve(estimate, published_us, low, high), estimate)


def _solve(
  function: Callable[[float], float], wanted: float, low: float, high: float
) -> float:
  """Find where a monotonic function has a value, or the nearest end.

  >>> round(_solve(lambda x: 10 / x, 4, 1, 5), 2)
  2.5
  """
  rises = function(high) > function(low)
  for _ in range(_HALVINGS):
    middle = (low + high) / 2
    if (function(middle) > wanted) == rises:
      high = middle
    else:
      low = middle
  return (low + high) / 2
