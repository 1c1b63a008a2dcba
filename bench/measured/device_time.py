"""How long a device was busy, by JAX's profiler."""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax


def run_profiled[Result](
  run: Callable[[], Result],
) -> tuple[Result, float | None]:
  """Calls a function and says how long devices were busy with it.

  Args:
    run: Returns when the devices are done.

  Returns:
    Its result, and the seconds of the busiest device; None where the profiler
    sees none, as for CPUs.
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
  """The time in which something ran on the busiest device.

  A TPU has a line for whole programs; elsewhere kernels of several streams
  overlap. Devices called CUSTOM are no devices, but markers.

  Args:
    planes: Of a `jax.profiler.ProfileData`.
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
  total, end = 0.0, 0.0
  for event in sorted(events, key=lambda event: event.start_ns):
    stop = event.start_ns + event.duration_ns
    total += max(0.0, stop - max(event.start_ns, end))
    end = max(end, stop)
  return total
