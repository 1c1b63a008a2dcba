"""Busy time of devices, from profiles."""

from types import SimpleNamespace

import jax.numpy as jnp

from podscale.bench.measured.device_time import busy_seconds, run_profiled


def plane(name, **lines):
  return SimpleNamespace(
    name=name,
    lines=[
      SimpleNamespace(
        name=line.replace("_", " "),
        events=[
          SimpleNamespace(start_ns=start, duration_ns=duration)
          for start, duration in events
        ],
      )
      for line, events in lines.items()
    ],
  )


def test_kernels_that_overlap_count_once():
  gpu = plane("/device:GPU:0", one=[(0, 10), (20, 10)], two=[(5, 10), (21, 2)])
  assert busy_seconds([gpu]) == 25e-9


def test_a_tpus_whole_programs_are_taken():
  tpu = plane("/device:TPU:0", XLA_Modules=[(0, 7)], Steps=[(0, 100)])
  assert busy_seconds([tpu]) == 7e-9


def test_the_busiest_device_counts():
  devices = [plane(f"/device:TPU:{i}", ops=[(9, i + 1)]) for i in range(3)]
  assert busy_seconds(devices) == 3e-9


def test_host_threads_are_no_device():
  host = plane("/host:CPU", python=[(0, 10)])
  idle = plane("/device:GPU:0")
  assert busy_seconds([host, idle]) is None


def test_a_profile_of_a_cpu_has_no_device_but_the_result():
  result, seconds = run_profiled(lambda: jnp.arange(3).block_until_ready())
  assert result.tolist() == [0, 1, 2]
  assert seconds is None
