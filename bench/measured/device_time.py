"""Busy time of devices, from JAX's profiler."""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax


def run_profiled[Result](
  run: Callable[[], Result],
) -> tuple[Result, float | None]:
  """Call a function and measure how long it kept devices busy.

  Args:
    run: Function that returns when the devices are done.

  Returns:
    The function's result, and the seconds of the busiest device; None where the
    profiler sees no device, as on CPUs.
  """
  options = jax.profiler.ProfileOptions()
  options.host_tracer_level = 0
  options.python_tracer_level = 0
  with tempfile.TemporaryDirectory(prefix="podscale-profile-") as folder:
    with jax.profiler.trace(folder, profiler_options=options):
      result = run()
    (path,) = Path(folder).rglob("*.xplane.pb")
    profile = jax.profiler.ProfileData.from_file(str(path))
    return result, busy_seconds(profile.planes)


def busy_seconds(planes: Iterable[Any]) -> float | None:
  """Compute the time in which something ran on the busiest device.

  A TPU's profile has one line of whole programs. Other devices run kernels on
  several streams, whose overlaps count once. Devices named CUSTOM hold markers
  and are skipped.

  Args:
    planes: Planes of a `jax.profiler.ProfileData`.

  Returns:
    Seconds, or None if no device has events.
  """
  seconds = []
  for plane in planes:
    if plane.name.startswith("/device:") and "CUSTOM" not in plane.name:
      lines = {line.name: list(line.events) for line in plane.lines}
      programs = lines.get("XLA Modules")
      events = programs or [e for line in lines.values() for e in line]
      if events:
        seconds.append(_union_ns(events) / 1e9)
  return max(seconds, default=None)


def _union_ns(events: Iterable[Any]) -> float:
  """Measure the union of the events' intervals."""
  total, end = 0.0, 0.0
  for event in sorted(events, key=lambda event: event.start_ns):
    stop = event.start_ns + event.duration_ns
    total += max(0.0, stop - max(event.start_ns, end))
    end = max(end, stop)
  return total
